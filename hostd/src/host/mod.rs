//! The host's verbs: everything that `hostd` does to the machine goes through here.
