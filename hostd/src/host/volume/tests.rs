mod on_btrfs;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn volumes(state: &Path, boot: &str) -> Volumes {
    let volumes = Volumes::new(state, boot);
    volumes.prepare().await.unwrap();
    volumes.prepare_scratch().await.unwrap();
    volumes
}

#[tokio::test]
async fn a_kept_volume_survives_a_boot_and_a_scratch_one_does_not() {
    let state = tempfile::tempdir().unwrap();
    let first = volumes(state.path(), "boot-1").await;
    first.create(&name("data"), VolumeLife::Keep).await.unwrap();
    first.create(&name("tmp"), VolumeLife::Scratch).await.unwrap();
    std::fs::write(first.path(&name("data"), VolumeLife::Keep).join("x"), "kept").unwrap();
    std::fs::write(first.path(&name("tmp"), VolumeLife::Scratch).join("x"), "gone").unwrap();
    let both = BTreeMap::from([(name("data"), VolumeLife::Keep), (name("tmp"), VolumeLife::Scratch)]);
    assert_eq!(volumes(state.path(), "boot-1").await.list().unwrap(), both);
    let second = volumes(state.path(), "boot-2").await;
    assert_eq!(second.list().unwrap(), BTreeMap::from([(name("data"), VolumeLife::Keep)]));
    assert_eq!(std::fs::read_dir(state.path().join("scratch")).unwrap().count(), 1);
}

#[tokio::test]
async fn making_a_volume_again_leaves_its_data_alone() {
    let state = tempfile::tempdir().unwrap();
    let volumes = volumes(state.path(), "boot").await;
    volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
    let file = volumes.path(&name("data"), VolumeLife::Keep).join("x");
    std::fs::write(&file, "data").unwrap();
    volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "data");
}

#[tokio::test]
async fn destroying_leaves_nothing_and_can_be_repeated() {
    let state = tempfile::tempdir().unwrap();
    let volumes = volumes(state.path(), "boot").await;
    volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
    std::fs::write(volumes.path(&name("data"), VolumeLife::Keep).join("x"), "data").unwrap();
    volumes.destroy(&name("data")).await.unwrap();
    volumes.destroy(&name("data")).await.unwrap();
    assert_eq!(std::fs::read_dir(state.path().join("volumes")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_half_destroyed_is_no_volume_and_is_removed_later() {
    let state = tempfile::tempdir().unwrap();
    let first = volumes(state.path(), "boot").await;
    std::fs::create_dir_all(state.path().join("volumes/.destroyed-data/deep")).unwrap();
    assert_eq!(first.list().unwrap(), BTreeMap::new());
    volumes(state.path(), "boot").await;
    assert_eq!(std::fs::read_dir(state.path().join("volumes")).unwrap().count(), 0);
}
