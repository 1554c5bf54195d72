//! How an operator is declared: its kind, the spec that a user writes, and how the spec builds the operator.
//!
//! A new operator is a file that exports an [`OperatorKind`]; the assembly has the one list of kinds. Nothing else compares
//! kinds by name: what others must know of an operator, its spec declares ([`OperatorSpec::needs`],
//! [`answers`](OperatorSpec::answers), [`multiplies`](OperatorSpec::multiplies)).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Problems, Section, did_you_mean};
use crate::fault::BoxError;
use crate::names::FlowName;
use crate::operator::{Batching, Operator, StageTypes};
use crate::registry::{Need, Services};

/// One kind of operator, as the config names it.
#[derive(Clone, Copy)]
pub struct OperatorKind {
    /// The value of `use`.
    pub name: &'static str,
    /// One sentence for `caudal check` and the docs.
    pub about: &'static str,
    /// Reads the stage's own keys; the engine's keys are already taken out.
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

/// Names that a spec may refer to.
#[derive(Clone, Debug, Default)]
pub struct DeclaredNames {
    /// `[flow.NAME]`.
    pub flows: BTreeSet<String>,
    /// Sections that declare services, each with its names: `model` has `photo` where the config has `[model.photo]`. A
    /// section without names, such as `[index]`, has an empty set.
    pub sections: BTreeMap<&'static str, BTreeSet<String>>,
}

/// A mistake in one key that only shows when the whole config is known.
#[derive(Clone, Debug)]
pub struct KeyProblem {
    /// The key it is about.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl KeyProblem {
    /// The problem that `key` names something undeclared, or none if it is declared.
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
                _ => {
                    let otherwise = format!("add a section [{what}.{name}], or use one of: {}", known.join(", "));
                    did_you_mean(name, known, &otherwise)
                }
            },
        })
    }

    /// The problem that no section declares a service that a stage needs, or none if one does.
    fn unless_met(need: &Need, names: &DeclaredNames) -> Option<Self> {
        let declared = names.sections.get(need.section);
        if let Some(named) = &need.named {
            let none = BTreeSet::new();
            return Self::unless_declared(named.key, need.section, &named.name, declared.unwrap_or(&none));
        }
        if need.has_defaults || declared.is_some() {
            return None;
        }
        let message = format!("the stage needs a {}, and none is declared", need.what);
        Some(Self { key: "use", message, remedy: format!("add a section [{}]", need.section) })
    }
}

/// What a user wrote for one stage, ready to be checked and built.
pub trait OperatorSpec: Send + Sync {
    /// The stage's types.
    fn types(&self) -> StageTypes;

    /// Batching where the config says nothing.
    fn batching(&self) -> Batching {
        Batching::ONE
    }

    /// The services that [`build`](Self::build) asks for. A process opens the services that its flows need, and no others;
    /// a service that no section declares is a problem of `caudal check`.
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }

    /// Mistakes that show in the light of the whole config; services are checked by [`needs`](Self::needs). No I/O.
    fn check(&self, names: &DeclaredNames) -> Vec<KeyProblem> {
        let _ = names;
        Vec::new()
    }

    /// Whether the operator answers the requester (`respond`), so that every event of the flow has one.
    fn answers(&self) -> bool {
        false
    }

    /// Whether it does something besides emitting, so that nobody needs to take what it emits.
    fn has_effect(&self) -> bool {
        false
    }

    /// The flow that it submits events to.
    fn submits_to(&self) -> Option<&FlowName> {
        None
    }

    /// Whether it may make several events of one.
    fn multiplies(&self) -> bool {
        false
    }

    /// Makes one instance for one worker; called again after a panic. Opens nothing slow: that is the connectors' part.
    ///
    /// # Errors
    /// If a service it needs was not opened.
    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError>;
}

impl dyn OperatorSpec {
    /// Every mistake of the stage in the light of the whole config: services it needs that are not declared, and what
    /// [`check`](OperatorSpec::check) finds.
    #[must_use]
    pub fn key_problems(&self, names: &DeclaredNames) -> Vec<KeyProblem> {
        let unmet = self.needs().into_iter().filter_map(|need| KeyProblem::unless_met(&need, names));
        unmet.chain(self.check(names)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Emits;
    use crate::registry::Service;

    trait Lamp: Send + Sync {}
    trait Socket: Send + Sync {}

    impl Service for dyn Lamp {
        const WHAT: &'static str = "lamp";
        const SECTION: &'static str = "lamp";
    }

    impl Service for dyn Socket {
        const WHAT: &'static str = "socket";
        const SECTION: &'static str = "socket";
        const HAS_DEFAULTS: bool = true;
    }

    /// A stage that needs what it is given.
    struct Needy(Vec<Need>);

    impl OperatorSpec for Needy {
        fn types(&self) -> StageTypes {
            StageTypes { takes: &[], gives: Emits::Nothing }
        }
        fn needs(&self) -> Vec<Need> {
            self.0.clone()
        }
        fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
            Err("not built in these tests".into())
        }
    }

    fn key_problems(need: Need, names: &DeclaredNames) -> Vec<KeyProblem> {
        let spec: &dyn OperatorSpec = &Needy(vec![need]);
        spec.key_problems(names)
    }

    fn declaring(section: &'static str, names: &[&str]) -> DeclaredNames {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        DeclaredNames { sections: [(section, names)].into(), ..DeclaredNames::default() }
    }

    #[test]
    fn a_name_that_no_section_declares_is_a_problem_at_its_key() {
        let found = key_problems(Need::named::<dyn Lamp>("light", "hall"), &declaring("lamp", &["desk"]));
        assert_eq!((found.len(), found[0].key), (1, "light"));
        assert_eq!(found[0].message, "no lamp is named \"hall\"");
        assert_eq!(found[0].remedy, "add a section [lamp.hall], or use one of: desk");
    }

    #[test]
    fn a_declared_name_is_fine() {
        assert!(key_problems(Need::named::<dyn Lamp>("light", "desk"), &declaring("lamp", &["desk"])).is_empty());
    }

    #[test]
    fn a_section_that_is_not_there_is_a_problem_at_the_kind() {
        let found = key_problems(Need::of::<dyn Lamp>(), &DeclaredNames::default());
        assert_eq!((found[0].key, &*found[0].remedy), ("use", "add a section [lamp]"));
        assert!(key_problems(Need::of::<dyn Lamp>(), &declaring("lamp", &[])).is_empty());
    }

    #[test]
    fn a_service_with_defaults_needs_no_section() {
        assert!(key_problems(Need::of::<dyn Socket>(), &DeclaredNames::default()).is_empty());
    }
}
