//! Documents that were made to do harm: each is refused, quickly and without a panic.

use std::time::{Duration, Instant};

use bennu_manifests::{MAX_DOCUMENT, check, check_trust, unpinned_images};

use crate::samples::{HEADER, full, image, with_container};

/// What a machine many times slower than any host may take; without bounds these take minutes, or the stack.
const LIMIT: Duration = Duration::from_secs(20);

fn refused(text: &str, expect: &str) {
    let began = Instant::now();
    let invalid = check(text.as_bytes()).expect_err("it must be refused");
    let shown = invalid.render("f", text);
    assert!(shown.contains(expect), "{expect:?} is not in:\n{shown}");
    assert!(shown.len() < 64 * 1024, "{} bytes are shown", shown.len());
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "a control character is shown");
    assert!(check_trust(text.as_bytes()).is_err());
    let _ = unpinned_images(text);
    assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
}

#[test]
fn nesting_is_bounded() {
    let limit = "nothing in this document is nested so deeply";
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        for depth in [100, 10_000, 30_000] {
            let nested = format!("{HEADER}deep = {}1{}\n", open.repeat(depth), close.repeat(depth));
            refused(&nested, limit);
        }
    }
    refused(&format!("{HEADER}{}a = 1\n", "a.".repeat(60_000)), limit);
    refused(&format!("{HEADER}[{}a]\n", "a.".repeat(60_000)), limit);
    refused(&format!("{HEADER}deep = {}1{}\n", "[".repeat(40), "]".repeat(40)), "unknown key `deep`");
}

#[test]
fn the_size_is_bounded_before_anything_is_looked_at() {
    let padded = |size: usize| {
        let text = with_container("");
        text.clone() + &"#".repeat(size - text.len())
    };
    assert!(check(padded(MAX_DOCUMENT).as_bytes()).is_ok());
    refused(&padded(MAX_DOCUMENT + 1), "larger than");
    // Not even UTF-8 is looked for beyond the limit.
    let invalid = check(&vec![0xff; MAX_DOCUMENT + 1]).expect_err("too large");
    assert!(invalid.errors[0].message.contains("larger than"));
}

#[test]
fn text_that_is_no_text_points_at_the_first_wrong_byte() {
    let mut bytes = HEADER.as_bytes().to_vec();
    bytes.extend_from_slice(b"a = \"\xff\"");
    let invalid = check(&bytes).expect_err("not UTF-8");
    assert_eq!((invalid.errors[0].line, invalid.errors[0].column), (6, 6));
    assert!(check(b"schema = 1\0").is_err());
}

#[test]
fn many_keys_entries_and_elements_are_refused() {
    let keys: String = (0..60_000).map(|number| format!("k{number}=1\n")).collect();
    refused(&format!("{HEADER}{keys}"), "unknown key `k0`");
    let containers: String = (0..20_000).map(|number| format!("[container.c{number}]\n")).collect();
    refused(&format!("{HEADER}{containers}"), "has 20000 entries, at most 1024 are taken");
    let variables: String = (0..257).map(|number| format!("A{number} = \"\"\n")).collect();
    refused(&with_container(&format!("[container.web.environment]\n{variables}")), "at most 256");
    let ports = |count: u32| (1..=count).map(|port| format!("\"{port}:80\",")).collect::<String>();
    refused(&with_container(&format!("ports = [{}]", ports(65))), "at most 64");
    assert!(check(with_container(&format!("ports = [{}]", ports(64))).as_bytes()).is_ok());
    refused(&with_container(&format!("command = [{}]", "\"\",".repeat(60_000))), "at most 256");
    let networks: String = (0..257).map(|number| format!("[network.n{number}]\n")).collect();
    refused(&format!("{HEADER}{networks}"), "at most 256");
}

#[test]
fn documents_that_would_be_large_trees_are_refused_before_they_are() {
    let heavy = "has more than 65536 of `=`";
    refused(&format!("{HEADER}{}", "k=1\n".repeat(70_000)), heavy);
    refused(&format!("{HEADER}{}a = 1\n", "a.".repeat(400_000)), heavy);
    refused(&format!("{HEADER}a = [{}]\n", "{},".repeat(300_000)), heavy);
    refused(&format!("{HEADER}a = {}\n", "[".repeat(900_000)), heavy);
    // What is only said is no weight.
    let text = with_container(&format!("[container.web.environment]\nA = \"{}\"", "=,.[".repeat(8_000)));
    assert!(check((text + &"# a = [b.c]\n".repeat(60_000)).as_bytes()).is_ok());
}

#[test]
fn what_was_meant_is_told_for_as_many_words_as_are_shown_and_no_more() {
    let words = |number: usize| (0..28).map(|key| format!("volumse{number}{key} = 1\n")).collect::<String>();
    let one = |number: usize| {
        format!("[container.c{number}]\n{}{}depends-on = [\"cc{number}\"]\n", image(), words(number))
    };
    let text = HEADER.to_owned() + &(0..1000).map(one).collect::<String>();
    refused(&text, "and at least");
    let capabilities = "\"NET_ADMINN\",".repeat(64);
    let one =
        |number: usize| format!("[container.c{number}]\n{}add-capabilities = [{capabilities}]\n", image());
    refused(&(HEADER.to_owned() + &(0..900).map(one).collect::<String>()), "help: write `NET_ADMIN`");
    let name = |number: usize| format!("volume-with-a-very-long-name-{number:04}");
    let volumes: String =
        (0..256).map(|number| format!("[volume.{}x]\nlife = \"keep\"\n", name(number))).collect();
    let mounts: String = (0..60).map(|number| format!("\"{}:/m{number}\",", name(number))).collect();
    let one = |number: usize| format!("[container.c{number}]\n{}volumes = [{mounts}]\n", image());
    refused(&(HEADER.to_owned() + &volumes + &(0..300).map(one).collect::<String>()), "help: did you mean");
}

#[test]
fn the_most_containers_in_one_long_chain_are_taken_and_in_a_ring_refused() {
    let chain = |first: &str| -> String {
        let link = |number: u32| {
            let depends = match number {
                0 => first.to_owned(),
                number => format!("[\"c{}\"]", number - 1),
            };
            format!("[container.c{number}]\n{}depends-on = {depends}\n", image())
        };
        HEADER.to_owned() + &(0..1024).map(link).collect::<String>()
    };
    assert_eq!(check(chain("[]").as_bytes()).expect("a chain has an end").containers.len(), 1024);
    refused(&chain("[\"c1023\"]"), "wait for each other");
}

#[test]
fn many_collisions_are_found_in_little_time() {
    let ports: String = (0..64).map(|last| format!("\"10.0.0.{last}:80:80\",")).collect();
    let container = |number: u32| format!("[container.c{number}]\n{}ports = [{ports}]\n", image());
    let text = HEADER.to_owned() + &(0..60).map(container).collect::<String>();
    refused(&text, "already published");
    let more: String = (0..64).map(|last| format!("\"{}:80\",", 1000 + last)).collect();
    let container = |number: u32| format!("[container.c{number}]\n{}ports = [{more}]\n", image());
    refused(&(HEADER.to_owned() + &(0..400).map(container).collect::<String>()), "at most 4096 ports");
}

#[test]
fn deceptive_and_control_characters_are_refused_and_never_shown() {
    for c in [
        '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200e}', '\u{200f}', '\u{61c}', '\u{85}',
        '\u{2028}',
    ] {
        let escaped = c.escape_unicode().to_string();
        for text in [
            HEADER.replace("demo", &format!("de{c}mo")),
            with_container(&format!("environment = {{ A = \"{c}\" }}")),
            with_container(&format!("environment = {{ \"A{c}\" = \"\" }}")),
            with_container(&format!("command = [\"a{c}\"]")),
            with_container(&format!("\"por{c}ts\" = []")),
            with_container(&format!("[container.\"a{c}\"]\n{}", image())),
            format!("{HEADER}audience = {{ labels = {{ a = \"{c}\" }} }}\n"),
        ] {
            let invalid = check(text.as_bytes()).expect_err("it must be refused");
            let shown = invalid.render("f", &text);
            assert!(!shown.contains(c), "{escaped} is shown");
        }
    }
}

#[test]
fn duplicate_keys_and_tables_are_refused() {
    for twice in [
        format!("{HEADER}serial = 6\n"),
        format!("{HEADER}\"serial\" = 6\n"),
        format!("{HEADER}[network.a]\n[network.a]\n"),
        with_container(&format!("[container.web]\n{}", image())),
        with_container("limits = { pids = 1, pids = 2 }"),
        with_container("restart = \"no\"\n'restart' = \"always\""),
        format!("{HEADER}[network]\na = {{}}\n[network.a]\ninternal = true\n"),
    ] {
        let invalid = check(twice.as_bytes()).expect_err("it must be refused");
        assert!(invalid.errors[0].message.contains("duplicate key"), "{invalid}");
    }
}

/// Every byte of a full manifest left out, doubled, and replaced by each of some others: never a panic.
#[test]
fn damaged_manifests_are_an_answer_and_not_a_panic() {
    let text = full();
    let began = Instant::now();
    for at in 0..text.len() {
        let (before, after) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
        let byte = text.as_bytes()[at];
        for middle in [&b""[..], &[byte, byte], b"\"", b"[", b"=", b"1", b"\n", b"\xff", b"."] {
            let damaged = [before, middle, after].concat();
            let _ = check_trust(&damaged);
            if let Err(invalid) = check(&damaged) {
                let shown = invalid.render("f", &String::from_utf8_lossy(&damaged));
                assert!(!shown.is_empty());
            }
        }
    }
    assert!(began.elapsed() < 6 * LIMIT, "it took {:?}", began.elapsed());
}

/// Every line of a full manifest left out: valid or not, it never panics, and faults lie within the text.
#[test]
fn manifests_with_a_line_missing_have_their_faults_within_the_text() {
    let text = full();
    let lines: Vec<&str> = text.lines().collect();
    for missing in 0..lines.len() {
        let shorter = [&lines[..missing], &lines[missing + 1..]].concat().join("\n");
        if let Err(invalid) = check(shorter.as_bytes()) {
            for fault in invalid.errors {
                assert!(fault.span.end <= shorter.len() && fault.line <= lines.len(), "{fault:?}");
            }
        }
    }
}
