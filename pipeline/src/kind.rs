//! How an operator is declared: its kind, the spec a user writes, and how one is built from the other.
//!
//! A new operator is a file that exports an [`OperatorKind`], listed once in the assembly.

use std::collections::BTreeSet;

use crate::config::{Problems, Section};
use crate::fault::BoxError;
use crate::operator::{Batching, Ends, Operator};
use crate::services::Services;

/// One kind of operator, as the config names it.
#[derive(Clone, Copy)]
pub struct OperatorKind {
    /// The value of `use`.
    pub name: &'static str,
    /// One sentence for `caudal check` and the docs.
    pub about: &'static str,
    /// Reads the stage's own keys (the engine's are already taken).
    pub read: fn(Section<'_>, &mut Problems) -> Option<Box<dyn OperatorSpec>>,
}

impl OperatorKind {
    /// A kind whose spec is the serde type `S`.
    #[must_use]
    pub const fn of<S>(name: &'static str, about: &'static str) -> Self
    where
        S: OperatorSpec + serde::de::DeserializeOwned + 'static,
    {
        Self { name, about, read: |section, problems| Some(Box::new(section.read::<S>(problems)?)) }
    }
}

/// Names a spec may refer to.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `[model.NAME]`.
    pub models: BTreeSet<String>,
    /// `[flow.NAME]`.
    pub flows: BTreeSet<String>,
}

/// Something about a key that only shows when the whole config is known.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The key it is about.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Complaint {
    /// The complaint that `key` names something undeclared, or none if it is declared.
    #[must_use]
    pub fn unless_declared(key: &'static str, what: &str, name: &str, declared: &BTreeSet<String>) -> Option<Self> {
        if declared.contains(name) {
            return None;
        }
        let known: Vec<&str> = declared.iter().map(String::as_str).collect();
        Some(Self {
            key,
            message: format!("no {what} is named {name:?}"),
            remedy: match known.as_slice() {
                [] => format!("add a section [{what}.{name}]"),
                _ => format!("add a section [{what}.{name}], or use one of: {}", known.join(", ")),
            },
        })
    }
}

/// What a user wrote for one stage, ready to be checked and built.
pub trait OperatorSpec: Send + Sync {
    /// The stage's types.
    fn ends(&self) -> Ends;

    /// Batching where the config says nothing.
    fn batching(&self) -> Batching {
        Batching::ONE
    }

    /// What is wrong in the light of the whole config. No I/O.
    fn check(&self, names: &Names) -> Vec<Complaint> {
        let _ = names;
        Vec::new()
    }

    /// Whether the operator answers the requester (`respond`), so that every event of the flow has one.
    fn answers(&self) -> bool {
        false
    }

    /// Whether it may make several events of one.
    fn multiplies(&self) -> bool {
        false
    }

    /// Makes one instance for one worker; called again after a panic. Opens nothing slow: that is the connectors' part.
    ///
    /// # Errors
    /// If a service it needs was not built.
    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError>;
}
