//! The operators: what a stage of a flow can do, in one folder per subject.
//!
//! An operator depends only on events and on the traits of [`pipeline`]: it knows no broker, no HTTP and no device.
//! `README.md` says where a new operator goes and which rules it must follow.

pub mod documents;
pub mod general;
pub mod pictures;
#[cfg(test)]
mod test_doubles;

use pipeline::OperatorKind;

use documents::{convert, fill, template, typeset};
use general::{publish, respond, split, webhook};
use pictures::{decode, embed, index, search};

/// Every kind of this crate, in alphabetical order. The assembly takes its list from here.
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
