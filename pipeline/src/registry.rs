//! The registry of services: an operator asks for a trait and gets what the assembly has offered.
//!
//! A service is keyed by its trait, and by a name where the config may declare several (`[model.NAME]`). The registry
//! knows no domain: a new service is a trait with an `impl Service for dyn …`, and nothing here changes.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use crate::completion::CompletionHook;
use crate::compute::Compute;
use crate::event::Cancellations;
use crate::incarnation::Incarnation;
use crate::ledger::Ledger;
use crate::pixel_budget::PixelBudget;
use crate::trace::Spans;
use crate::transport::Transport;

/// A trait that operators may ask for, implemented for the trait object: `impl Service for dyn VectorIndex`.
pub trait Service: Send + Sync + 'static {
    /// What it is, for messages: `"vector index"`.
    const WHAT: &'static str;
    /// The section of the config that declares it, without brackets: `"index"`; `"model"` where it is `[model.NAME]`.
    const SECTION: &'static str;
    /// Whether it is opened with defaults where the config has no such section.
    const HAS_DEFAULTS: bool = false;
}

/// A service that a stage needs; what no stage of a process needs is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    service: TypeId,
    pub(crate) what: &'static str,
    pub(crate) section: &'static str,
    pub(crate) has_defaults: bool,
    pub(crate) named: Option<Named>,
}

/// Which of several, and the key of the stage that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub key: &'static str,
    pub name: Arc<str>,
}

impl Need {
    /// The service of which there is one.
    #[must_use]
    pub fn of<T: Service + ?Sized>() -> Self {
        let (what, section, has_defaults) = (T::WHAT, T::SECTION, T::HAS_DEFAULTS);
        Self { service: TypeId::of::<T>(), what, section, has_defaults, named: None }
    }

    /// The service of that name; `key` is the key of the stage that holds the name.
    #[must_use]
    pub fn named<T: Service + ?Sized>(key: &'static str, name: &str) -> Self {
        Self { named: Some(Named { key, name: name.into() }), ..Self::of::<T>() }
    }

    /// Whether this service is meant, whatever its name.
    #[must_use]
    pub fn is<T: Service + ?Sized>(&self) -> bool {
        self.service == TypeId::of::<T>()
    }

    /// The name, where the config may declare several.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.named.as_ref().map(|named| &*named.name)
    }
}

/// Why an operator does not get a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Nothing was offered: no section declares it, or the operator does not list it in its
    /// [needs](crate::OperatorSpec::needs).
    #[error("no {what} was opened: write a section [{section}], and list the service in the operator's needs")]
    Missing {
        /// What it is; with its name, where it has one.
        what: String,
        /// The section that declares it.
        section: String,
    },
    /// It is declared, but not usable on this machine.
    #[error("{0}")]
    Declined(Arc<str>),
    /// The process has no such part: only in tests that do without.
    #[error("this process has no {0}")]
    NotStarted(&'static str),
}

/// What all flows of a process share, and the engine itself uses.
#[derive(Clone, Default)]
pub struct ProcessResources {
    /// Requests that were cancelled.
    pub cancellations: Arc<Cancellations>,
    /// Events that have ended.
    pub ledger: Arc<Ledger>,
    /// How other processes know whether this one lives.
    pub incarnation: Arc<Incarnation>,
    /// Memory for decoded images.
    pub pixels: PixelBudget,
    /// Threads for work that computes; `None` only in tests of operators that do not.
    pub compute: Option<Compute>,
    /// Takes spans; `None` where tracing is off.
    pub spans: Option<Arc<dyn Spans>>,
    /// Where events and records are stored; `None` only in tests of operators that need no broker.
    pub transport: Option<Arc<dyn Transport>>,
    /// Makes the follow-up events of flows with `webhooks`; such a flow is not built without it.
    pub completion_hook: Option<Arc<dyn CompletionHook>>,
}

/// Holds an `Arc<T>` of the trait object `T` it is keyed by, or why there is none.
type Offer = Result<Arc<dyn Any + Send + Sync>, Arc<str>>;

/// Everything an operator may be built from.
#[derive(Clone, Default)]
pub struct Services {
    /// What all flows of the process share.
    pub process: ProcessResources,
    offers: HashMap<(TypeId, Option<Arc<str>>), Offer>,
}

impl Services {
    /// No service yet.
    #[must_use]
    pub fn new(process: ProcessResources) -> Self {
        Self { process, offers: HashMap::new() }
    }

    /// Offers the service of which there is one.
    #[must_use]
    pub fn offer<T: Service + ?Sized>(mut self, service: Arc<T>) -> Self {
        self.offers.insert((TypeId::of::<T>(), None), Ok(Arc::new(service)));
        self
    }

    /// Offers one of several, under its name.
    #[must_use]
    pub fn offer_named<T: Service + ?Sized>(mut self, name: &str, service: Arc<T>) -> Self {
        self.offers.insert((TypeId::of::<T>(), Some(name.into())), Ok(Arc::new(service)));
        self
    }

    /// Says why a service is declared but not usable on this machine, and what to do.
    #[must_use]
    pub fn decline<T: Service + ?Sized>(mut self, why: impl Into<Arc<str>>) -> Self {
        self.offers.insert((TypeId::of::<T>(), None), Err(why.into()));
        self
    }

    /// The service of which there is one.
    ///
    /// # Errors
    /// If it was not offered, with the section to write; if it was declined, with the reason.
    pub fn get<T: Service + ?Sized>(&self) -> Result<Arc<T>, ServiceError> {
        let missing = || ServiceError::Missing { what: T::WHAT.into(), section: T::SECTION.into() };
        self.find(None, missing)
    }

    /// One of several, by its name.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_named<T: Service + ?Sized>(&self, name: &str) -> Result<Arc<T>, ServiceError> {
        let missing = || ServiceError::Missing {
            what: format!("{} named {name:?}", T::WHAT),
            section: format!("{}.{name}", T::SECTION),
        };
        self.find(Some(name), missing)
    }

    /// The service, or why it was declined: for an operator that does part of its work without.
    ///
    /// # Errors
    /// If it was not offered.
    pub fn get_or_declined<T: Service + ?Sized>(&self) -> Result<Result<Arc<T>, Arc<str>>, ServiceError> {
        match self.get() {
            Ok(service) => Ok(Ok(service)),
            Err(ServiceError::Declined(why)) => Ok(Err(why)),
            Err(missing) => Err(missing),
        }
    }

    /// Where events and records are stored.
    ///
    /// # Errors
    /// In tests without a broker.
    pub fn transport(&self) -> Result<Arc<dyn Transport>, ServiceError> {
        self.process.transport.clone().ok_or(ServiceError::NotStarted("transport"))
    }

    /// The threads for work that computes.
    ///
    /// # Errors
    /// In tests without computing threads.
    pub fn compute(&self) -> Result<Compute, ServiceError> {
        self.process.compute.clone().ok_or(ServiceError::NotStarted("computing threads"))
    }

    fn find<T: Service + ?Sized>(
        &self,
        name: Option<&str>,
        missing: impl FnOnce() -> ServiceError,
    ) -> Result<Arc<T>, ServiceError> {
        match self.offers.get(&(TypeId::of::<T>(), name.map(Arc::from))) {
            None => Err(missing()),
            Some(Err(why)) => Err(ServiceError::Declined(Arc::clone(why))),
            Some(Ok(offer)) => Ok(Arc::clone(offer.downcast_ref::<Arc<T>>().expect("the key is the type"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Lamp: Send + Sync {
        fn watts(&self) -> u32;
    }

    impl Lamp for u32 {
        fn watts(&self) -> u32 {
            *self
        }
    }

    impl Service for dyn Lamp {
        const WHAT: &'static str = "lamp";
        const SECTION: &'static str = "lamp";
    }

    fn lamp(watts: u32) -> Arc<dyn Lamp> {
        Arc::new(watts)
    }

    #[test]
    fn what_was_offered_is_given() {
        let services = Services::default().offer(lamp(40));
        assert_eq!(services.get::<dyn Lamp>().unwrap().watts(), 40);
    }

    #[test]
    fn a_missing_service_names_the_section_to_write() {
        let error = Services::default().get::<dyn Lamp>().err().unwrap();
        assert!(error.to_string().contains("[lamp]"), "{error}");
    }

    #[test]
    fn named_services_are_told_apart() {
        let services = Services::default().offer_named("desk", lamp(40)).offer_named("hall", lamp(60));
        assert_eq!(services.get_named::<dyn Lamp>("hall").unwrap().watts(), 60);
        assert!(services.get::<dyn Lamp>().is_err());
    }

    #[test]
    fn a_missing_name_names_the_section_to_write() {
        let services = Services::default().offer_named("desk", lamp(40));
        let error = services.get_named::<dyn Lamp>("hall").err().unwrap();
        assert!(
            error.to_string().contains("lamp named \"hall\"") && error.to_string().contains("[lamp.hall]"),
            "{error}"
        );
    }

    #[test]
    fn a_declined_service_gives_its_reason() {
        let services = Services::default().decline::<dyn Lamp>("the bulb is broken");
        assert_eq!(services.get::<dyn Lamp>().err(), Some(ServiceError::Declined("the bulb is broken".into())));
    }

    #[test]
    fn an_operator_that_does_without_is_told_why_but_not_when_nothing_was_offered() {
        let declined = Services::default().decline::<dyn Lamp>("the bulb is broken");
        assert_eq!(declined.get_or_declined::<dyn Lamp>().unwrap().err().as_deref(), Some("the bulb is broken"));
        assert!(Services::default().get_or_declined::<dyn Lamp>().is_err());
    }

    #[test]
    fn a_need_knows_its_service_and_its_name() {
        let need = Need::named::<dyn Lamp>("lamp", "desk");
        assert!(need.is::<dyn Lamp>() && !need.is::<dyn OtherLamp>());
        assert_eq!((need.name(), Need::of::<dyn Lamp>().name()), (Some("desk"), None));
    }

    trait OtherLamp: Send + Sync {}

    impl Service for dyn OtherLamp {
        const WHAT: &'static str = "other lamp";
        const SECTION: &'static str = "other_lamp";
    }
}
