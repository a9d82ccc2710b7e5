//! A registry that lies.
