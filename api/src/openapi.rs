//! The description of the API (OpenAPI 3.1), made from the table of operations and from the types of what they exchange.
//! A test writes it and compares it; hosts serve it as it is.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator as Generator, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    Accepted, BundleQuery, Confirmed, Containers, Dump, Event, EventsQuery, Exec, ExecOutput, FromCommand,
    History, Images, Inspected, LogLine, LogsQuery, Method, Operation, Planned, Problem, Reborn, Receipts,
    ReceiptsQuery, Replaced, Restore, Role, RolledBack, Snapshot, Snapshots, Status, Submission, ToCommand,
    TrustInForce, TrustSubmission, TrustTaken, Volumes, WhyNot,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
/// Set this to write the file anew.
const UPDATE: &str = "UPDATE_REFERENCE";

/// A moment (RFC 3339).
pub(crate) struct Moment;

impl JsonSchema for Moment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut Generator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Words of enumerations of other crates, which know nothing of schemas.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $of:ty = $($variant:ident)*) => {
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut Generator) -> Schema {
                // A word that the other crate adds makes this match fail to compile.
                let word = |value: $of| match value { $(<$of>::$variant => serde_json::to_value(value)),* };
                let words: Vec<Value> =
                    [$(<$of>::$variant),*].into_iter().map(|value| word(value).expect("a word")).collect();
                json_schema!({ "type": "string", "enum": words })
            }
        }
    };
}

words!(State: bennu_planner::State = Starting Running Restarting Completed Failed Stopped);
words!(Health: bennu_planner::Health = Unchecked Starting Healthy Unhealthy);
words!(VolumeLife: bennu_manifests::model::VolumeLife = Keep Snapshot Scratch);

/// What an operation is given and what it answers.
struct Exchange {
    parameters: Vec<Value>,
    /// By its type; null where there is none.
    body: Value,
    status: &'static str,
    answer: Value,
}

fn exchange(operation: Operation, schemas: &mut SchemaGenerator) -> Exchange {
    let json = |schema: Schema| json!({ "application/json": { "schema": schema } });
    let given = |body: Option<Schema>, answer: Value| {
        let body = body.map_or(Value::Null, json);
        Exchange { parameters: Vec::new(), body, status: "200", answer }
    };
    let lines = |schema: Schema| json!({ "application/x-ndjson": { "schema": schema } });
    let text = || json!({ "text/plain": { "schema": { "type": "string" } } });
    macro_rules! of {
        ($type:ty) => {
            schemas.subschema_for::<$type>()
        };
    }
    match operation {
        Operation::Manifest => given(Some(of!(Submission)), json(of!(Accepted))),
        Operation::Bundle => {
            let parameters = query::<BundleQuery>(schemas);
            Exchange { parameters, body: tar(), ..given(None, json(of!(Accepted))) }
        }
        Operation::Plan => given(Some(of!(Submission)), json(of!(Planned))),
        Operation::Trust => given(None, json(of!(TrustInForce))),
        Operation::TakeTrust => given(Some(of!(TrustSubmission)), json(of!(TrustTaken))),
        Operation::Status => given(None, json(of!(Status))),
        Operation::Containers => given(None, json(of!(Containers))),
        Operation::Inspect => given(None, json(of!(Inspected))),
        Operation::Metrics | Operation::Health => given(None, text()),
        Operation::Images => given(None, json(of!(Images))),
        Operation::Volumes => given(None, json(of!(Volumes))),
        Operation::Snapshots => given(None, json(of!(Snapshots))),
        Operation::TakeSnapshot => given(None, json(of!(Snapshot))),
        Operation::RemoveSnapshot => given(None, Value::Null),
        Operation::RestoreVolume => given(Some(of!(Restore)), json(of!(Replaced))),
        Operation::ExportVolume => {
            Exchange { parameters: vec![optional("snapshot", "That of a snapshot.")], ..given(None, tar()) }
        }
        Operation::ImportVolume => {
            let replace = optional("replace", "Whether what is there may go.");
            Exchange { parameters: vec![replace], body: tar(), ..given(None, json(of!(Replaced))) }
        }
        Operation::Files => {
            let parameters =
                vec![optional("container", "The container."), optional("path", "The path in it.")];
            Exchange { parameters, ..given(None, tar()) }
        }
        Operation::Why => given(None, json(of!(WhyNot))),
        Operation::Confirm | Operation::Approve => given(None, json(of!(Confirmed))),
        Operation::Rollback => given(None, json(of!(RolledBack))),
        Operation::Rebirth => given(None, json(of!(Reborn))),
        Operation::History => given(None, json(of!(History))),
        Operation::Receipts => {
            let answer = json(of!(Receipts));
            Exchange { parameters: query::<ReceiptsQuery>(schemas), ..given(None, answer) }
        }
        Operation::Events => {
            let answer = lines(of!(Event));
            Exchange { parameters: query::<EventsQuery>(schemas), ..given(None, answer) }
        }
        Operation::Logs => {
            let answer = lines(of!(LogLine));
            Exchange { parameters: query::<LogsQuery>(schemas), ..given(None, answer) }
        }
        Operation::Exec => given(Some(of!(Exec)), lines(of!(ExecOutput))),
        Operation::Talk | Operation::DebugShell => {
            // Named, so that their schemas are part of the description.
            let _ = (of!(ToCommand), of!(FromCommand));
            Exchange { status: "101", ..given(None, Value::Null) }
        }
        Operation::Dump => given(None, json(of!(Dump))),
        Operation::OpenApi => given(None, json(json_schema!({ "type": "object" }))),
    }
}

fn optional(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } })
}

fn tar() -> Value {
    json!({ "application/x-tar": { "schema": { "type": "string", "format": "binary" } } })
}

/// What is chosen in a path.
fn chosen(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
}

/// A query's fields as parameters.
fn query<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Vec<Value> {
    let schema = T::json_schema(schemas).to_value();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let parameter = |(name, field): (&String, &Value)| {
        let mut field = field.clone();
        let description = field.as_object_mut().and_then(|field| field.remove("description"));
        json!({
            "name": name, "in": "query", "required": required.contains(&json!(name)),
            "description": description, "schema": field,
        })
    };
    schema["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

fn described(operation: Operation, schemas: &mut SchemaGenerator) -> Value {
    let Exchange { mut parameters, body, status, answer } = exchange(operation, schemas);
    parameters.extend(chosen(operation.path()));
    let problem = schemas.subschema_for::<Problem>();
    let refused =
        |said: &str| json!({ "description": said, "content": { "application/json": { "schema": problem } } });
    let mut answers = Map::new();
    let mut success = json!({ "description": operation.summary() });
    if status == "101" {
        success["description"] =
            json!("A WebSocket: text messages are `ToCommand` and `FromCommand`, see docs/api.md");
    } else if !answer.is_null() {
        success["content"] = answer;
    }
    answers.insert(status.to_owned(), success);
    if operation == Operation::Health {
        answers.insert("503".to_owned(), json!({ "description": "It is not, and why" }));
    }
    answers.insert("403".to_owned(), refused("Refused for security; the rule is named"));
    answers.insert("default".to_owned(), refused("Not carried out, and why"));
    let mut told = json!({
        "operationId": format!("{operation:?}"),
        "summary": operation.summary(),
        "description": format!("Needs the role `{}`.", operation.needs()),
        "x-bennu-role": operation.needs(),
        "responses": answers,
    });
    if !parameters.is_empty() {
        told["parameters"] = json!(parameters);
    }
    if !body.is_null() {
        told["requestBody"] = json!({ "required": true, "content": body });
    }
    told
}

fn description() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for operation in Operation::ALL {
        let method = match operation.method() {
            Method::Get => "get",
            Method::Post => "post",
            Method::Delete => "delete",
        };
        let told = described(operation, &mut schemas);
        paths.entry(operation.path()).or_insert_with(|| json!({}))[method] = told;
    }
    let roles = Role::ALL.map(Role::word).join(", ");
    let description = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hostd",
            "version": "1",
            "description": format!(
                "The API of a Bennu host, on a Unix socket of root's and under mutual TLS. A client certificate \
                 names its role: one of {roles}, each of which may do what those before it may."
            ),
        },
        "security": [{ "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "certificate": { "type": "mutualTLS" } },
        },
    });
    serde_json::to_string_pretty(&description).expect("it is JSON") + "\n"
}

#[test]
fn the_description_of_the_api_is_what_the_types_say() {
    let now = description();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(FILE, &now).expect("the description can be written");
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(written == now, "api/openapi.json is not what the types say: run the tests with {UPDATE}=1");
}

#[test]
fn the_description_has_every_operation_and_no_other_and_every_reference_leads_somewhere() {
    let description: Value = serde_json::from_str(&description()).expect("it is JSON");
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, told) in methods.as_object().expect("methods") {
            let method = match method.as_str() {
                "get" => Method::Get,
                "post" => Method::Post,
                _ => Method::Delete,
            };
            let operation = Operation::find(method, path).expect(path);
            assert_eq!(told["x-bennu-role"], operation.needs().word());
            operations += 1;
        }
    }
    assert_eq!(operations, Operation::ALL.len());
    let text = description.to_string();
    let references: Vec<&str> =
        text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference} leads nowhere");
    }
}
