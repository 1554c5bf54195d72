//! The operators: what a stage of a flow can do. One file each, named for its verb.
//!
//! An operator knows events and the traits of [`pipeline`], nothing else: no broker, no HTTP, no device. `README.md` says
//! where a new one goes and what it may not do.

pub mod convert;
pub mod decode;
pub mod embed;
#[cfg(test)]
mod fakes;
pub mod fill;
pub mod index;
pub mod office;
pub mod publish;
pub mod respond;
pub mod search;
pub mod split;
mod stored;
pub mod template;
pub mod typeset;
pub mod webhook;

use pipeline::OperatorKind;

/// Every kind of this crate, in the order of the alphabet. The assembly takes its list from here.
pub const ALL: &[OperatorKind] = &[
    convert::KIND,
    decode::KIND,
    embed::KIND,
    fill::KIND,
    index::KIND,
    publish::KIND,
    respond::KIND,
    search::KIND,
    split::KIND,
    template::KIND,
    typeset::KIND,
    webhook::KIND,
];
