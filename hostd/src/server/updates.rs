//! Updates by hand: why the host has not updated, and yes, no and back.

use axum::Json;
use axum::extract::State;
use bennu_api::{Confirmed, Problem, ProblemKind, Reborn, RolledBack, WhyNot};

use super::routes::{Refused, Shared, not_found};
use crate::core::failed;
use crate::update::{self, Rebirth};

pub(super) async fn why(State(core): Shared) -> Json<WhyNot> {
    Json(core.why().await)
}

pub(super) async fn confirm(State(core): Shared) -> Result<Json<Confirmed>, Refused> {
    match update::confirm(&core).await.map_err(failed)? {
        Some(generation) => Ok(Json(Confirmed { generation })),
        None => Err(Refused(not_found("no generation is on trial, so there is nothing to confirm"))),
    }
}

pub(super) async fn approve(State(core): Shared) -> Result<Json<Confirmed>, Refused> {
    match core.approve().await {
        Some(generation) => Ok(Json(Confirmed { generation })),
        None => Err(Refused(not_found("no generation is pending, so there is nothing to approve"))),
    }
}

pub(super) async fn roll_back(State(core): Shared) -> Result<Json<RolledBack>, Refused> {
    match update::roll_back(&core).await.map_err(failed)? {
        Some((from, to)) => Ok(Json(RolledBack { from, to })),
        None => {
            Err(Refused(not_found("there is no generation to go back to: none was kept before this one")))
        }
    }
}

pub(super) async fn rebirth(State(core): Shared) -> Result<Json<Reborn>, Refused> {
    match update::rebirth(&core).await.map_err(failed)? {
        Rebirth::Begun(generation) => Ok(Json(Reborn { generation })),
        Rebirth::Nothing => {
            Err(Refused(not_found("nothing is active yet, so there is nothing to begin again")))
        }
        Rebirth::OnTrial(generation) => {
            let message = format!(
                "generation {generation} is on trial, and a boot would count against it; wait until it is kept (`hostctl why`), \
                 confirm it (`hostctl confirm`) or go back (`hostctl rollback`)"
            );
            let (rule, detail) = (String::new(), String::new());
            Err(Refused(Problem { kind: ProblemKind::Failed, rule, message, detail }))
        }
    }
}
