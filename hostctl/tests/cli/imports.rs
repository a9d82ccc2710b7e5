//! `import` and `fmt`.

use crate::Desk;

const COMPOSE: &str = "services:\n  web:\n    image: nginx:${VERSION}\n    ports: [\"8080:80\"]\n    volumes: [data:/data]\n\
                       volumes:\n  data:\n";

#[test]
fn a_compose_file_becomes_a_manifest() {
    let desk = Desk::new();
    desk.write("compose.yaml", COMPOSE);
    desk.write(".env", "VERSION=1.27\n");
    let ended = desk.run(&["import", "compose", "compose.yaml", "--name", "shop"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "everything was carried over");
    for part in
        ["name = \"shop\"\n", "image = \"docker.io/library/nginx:1.27\"\n", "volumes = [\"data:/data\"]\n"]
    {
        assert!(ended.stdout.contains(part), "{part} is missing from {}", ended.stdout);
    }
    let other = desk.run(&["import", "compose", "compose.yaml", "--env", "VERSION=9"]).with(0);
    assert!(other.contains("nginx:9\""), "what is given comes before `.env`: {other}");
}

#[test]
fn what_cannot_be_carried_over_is_named_with_its_place() {
    let desk = Desk::new();
    desk.write("compose.yaml", &COMPOSE.replace("    ports", "    privilegedd: true\n    ports"));
    let ended = desk.run(&["import", "compose", "compose.yaml", "--env", "VERSION=1"]);
    assert_eq!(ended.code, 0);
    let expect = "compose.yaml:4:5: not carried over: services.web.privilegedd: the key `privilegedd` is not known here\n  \
                  = help: did you mean `privileged`?\n";
    assert_eq!(ended.stderr, expect);
    let json = desk.run(&["import", "compose", "compose.yaml", "--env", "VERSION=1", "--json"]).json(0);
    let note = &json["notes"][0];
    assert_eq!((&note["line"], &note["column"], &note["kind"]), (&4.into(), &5.into(), &"lost".into()));
    assert_eq!(note["path"], "services.web.privilegedd");
    assert!(json["manifest"].as_str().is_some_and(|text| text.contains("[container.web]")));
}

#[test]
fn a_strict_import_writes_nothing_unless_all_is_as_it_was() {
    let desk = Desk::new();
    desk.write("compose.yaml", COMPOSE);
    let strict = ["import", "compose", "compose.yaml", "--strict", "-o", "host.toml"];
    let ended = desk.run(&strict);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("`VERSION` is not set"), "{}", ended.stderr);
    assert!(!desk.path("host.toml").exists());

    desk.write(".env", "VERSION=1\n");
    assert_eq!(desk.run(&strict).with(0), "host.toml\n");
    assert!(desk.read("host.toml").contains("nginx:1\""));
    assert_eq!(desk.run(&strict).code, 1, "a file that is there is left alone");
}

#[test]
fn units_and_command_lines_become_manifests() {
    let desk = Desk::new();
    desk.write(
        "web.container",
        "[Container]\nImage=quay.io/a/b:1\nVolume=d.volume:/d\n[Install]\nWantedBy=x.target\n",
    );
    desk.write("d.volume", "[Volume]\n");
    let ended = desk.run(&["import", "quadlet", "web.container", "d.volume"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("volumes = [\"d:/d\"]\n"), "{}", ended.stdout);

    let line = "docker run -d --name web -p 8080:80 nginx:1 nginx -g 'daemon off;'";
    let whole = desk.run(&["import", "run", line]).with(0);
    assert!(whole.contains("command = [\"nginx\", \"-g\", \"daemon off;\"]\n"), "{whole}");
    let words =
        ["docker", "run", "-d", "--name", "web", "-p", "8080:80", "nginx:1", "nginx", "-g", "daemon off;"];
    let split = desk.run(&[&["import", "run", "--"], &words[..]].concat()).with(0);
    let body = |text: &str| text[text.find("[container").expect("a container")..].to_owned();
    assert_eq!(body(&whole), body(&split));
}

#[test]
fn inputs_that_are_none_end_with_2_and_their_place() {
    let desk = Desk::new();
    for (file, text, place) in [
        ("a.yaml", "services:\n  web: [\n", "a.yaml:"),
        ("b.yaml", "a: 1\n", "b.yaml has nothing to import"),
        ("c.yaml", "services: {a: {image: \"${X:?why}\"}}\n", "c.yaml:1:23:"),
    ] {
        desk.write(file, text);
        let ended = desk.run(&["import", "compose", file]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
        assert!(ended.stderr.contains(place), "{}", ended.stderr);
    }
    assert_eq!(desk.run(&["import", "compose", "missing.yaml"]).code, 5);
    assert_eq!(desk.run(&["import", "run", "ls -l"]).code, 2);
    assert_eq!(desk.run(&["import", "compose", "a.yaml", "--env", "X"]).code, 2);
}

#[test]
fn a_manifest_is_laid_out_and_its_comments_stay() {
    let desk = Desk::new();
    desk.write("host.toml", "serial=1 # first\nschema = 1\n\n\n[container.a]\n# why\nimage='x'\n");
    let check = desk.run(&["fmt", "--check", "host.toml"]);
    assert_eq!((check.code, check.stdout.as_str()), (1, "host.toml is not laid out: line 1 differs\n"));
    desk.write("host.toml.sig", "");
    let done = desk.run(&["fmt", "host.toml"]).with(0);
    assert_eq!(done, "host.toml laid out\nits signatures are void: sign it again\n");
    let expect = "schema = 1\nserial = 1 # first\n\n[container.a]\n# why\nimage = 'x'\n";
    assert_eq!(desk.read("host.toml"), expect);
    assert_eq!(desk.run(&["fmt", "--check", "host.toml"]).with(0), "host.toml is laid out\n");
    desk.write("broken.toml", "a = \n");
    assert_eq!(desk.run(&["fmt", "broken.toml"]).code, 2);
}

#[test]
fn the_examples_are_laid_out() {
    let desk = Desk::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            desk.run(&["fmt", "--check", path.to_str().expect("a path")]).with(0);
            count += 1;
        }
    }
    assert!(count > 0, "there are examples");
}
