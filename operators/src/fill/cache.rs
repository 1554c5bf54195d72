//! Compiled templates by the digest of their bytes, so that a template is compiled once however often it is filled.

use std::sync::Arc;

use bytes::Bytes;
use pipeline::Digest;
use pipeline::spec::ByteSize;
use sha2::{Digest as _, Sha256};

use super::{FillError, Options, Template};

/// Compiled templates, the least used of them given up when there are too many bytes.
#[derive(Clone, Debug)]
pub struct Cache {
    options: Arc<Options>,
    templates: moka::sync::Cache<Digest, Arc<Template>>,
}

impl Cache {
    /// Holds about `most` bytes of templates, all read with the same options.
    #[must_use]
    pub fn new(most: ByteSize, options: Options) -> Self {
        let weigh = |_: &Digest, template: &Arc<Template>| u32::try_from(template.resident_bytes()).unwrap_or(u32::MAX);
        let templates = moka::sync::Cache::builder().max_capacity(most.0).weigher(weigh).build();
        Self { options: Arc::new(options), templates }
    }

    /// The template of these bytes. Computes where it is not there; callers that ask for the same one at once wait for
    /// one compilation. What cannot be compiled is not kept.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn get(&self, bytes: &Bytes) -> Result<Arc<Template>, FillError> {
        let digest = Digest(Sha256::digest(bytes).into());
        let compile = || Template::compile(bytes.clone(), &self.options).map(Arc::new);
        self.templates.try_get_with(digest, compile).map_err(|why| FillError::clone(&why))
    }
}
