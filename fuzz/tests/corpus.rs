//! Every kept input holds what its target asks for.

use std::path::Path;

#[test]
fn nothing_of_the_kept_corpus_breaks_a_parser() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in bennu_fuzz::TARGETS {
        let folder = std::fs::read_dir(corpus.join(name)).expect(name);
        let inputs: Vec<_> = folder.map(|entry| entry.expect("listed").path()).collect();
        assert!(inputs.len() >= 5, "{name} has {} inputs", inputs.len());
        for input in inputs {
            println!("{}", input.display());
            target(&std::fs::read(&input).expect("it can be read"));
        }
    }
}

#[test]
#[should_panic(expected = "the canary was found")]
fn the_canary_breaks() {
    bennu_fuzz::canary(b"ashes");
}
