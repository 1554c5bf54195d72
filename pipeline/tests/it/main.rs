//! Tests of the engine and the config through the crate's public face.

mod config;
mod engine;
mod support;
