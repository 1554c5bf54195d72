//! Renders a template with data to a PDF, and enforces the limits of pages, bytes, steps and time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value as Json;
use typst::diag::{SourceDiagnostic, SourceResult};
use typst::syntax::DiagSpan;
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandards};

use super::error::TypesetError;
use super::options::{Options, Standard};
use super::place::{Place, start_of};
use super::typst_template::Template;
use super::world::{LimitExceeded, TemplateWorld};

/// Pages between evictions of typst's cache, which removes entries that were not used since the last eviction. The
/// cache is shared by all templates and grows by some MB per page; the next document reuses what both have in common.
/// An eviction walks the whole cache, so it is not done for every document.
const EVICT_AFTER: usize = 16;

/// Stack of one rendering, in bytes; unused pages are never allocated. typst lays out by recursion and takes about 4 KB
/// per nested fraction: the default stack of a thread overflows below 500 levels.
const STACK: usize = 64 << 20;

/// Pages since the last eviction.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// The beginning of typst's message for a missing field.
const MISSING: &str = "dictionary does not contain key ";

impl Template {
    /// Renders the template to a PDF of the standard in its options. CPU-bound: do not call it on a thread of the
    /// runtime. The same template and data give the same bytes.
    ///
    /// # Errors
    /// 422: `undefined_variable` for a field that the data do not have, `render_failed`, and beyond the limits
    /// `render_too_long` and `render_too_large`; 500 `internal` if typst panics.
    pub fn render(&self, context: &Json) -> Result<Vec<u8>, TypesetError> {
        self.render_as(context, self.options.standard)
    }

    /// As [`Self::render`], to a PDF of another standard.
    ///
    /// # Errors
    /// Those of [`Self::render`]; also 422 `render_failed` if the document would violate the standard.
    pub fn render_as(&self, context: &Json, standard: Standard) -> Result<Vec<u8>, TypesetError> {
        render(self, context, standard)
    }
}

fn render(template: &Template, context: &Json, standard: Standard) -> Result<Vec<u8>, TypesetError> {
    let data = serde_json::to_vec(context).map_err(|why| TypesetError::data("data_malformed", why.to_string()))?;
    let options = &template.options;
    let world = TemplateWorld::new(&template.source, data, options.steps, options.time);
    // A document that fails may have computed any number of pages.
    let mut pages = EVICT_AFTER;
    stacker::grow(STACK, || {
        let work = || typeset(template, &world, standard, &mut pages);
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|cause| Err(stopped(cause.as_ref(), options)));
        evict(pages);
        done
    })
}

/// Bounds typst's cache. Renderings on other threads continue meanwhile, and recompute what they miss.
fn evict(pages: usize) {
    let since = PAGES.fetch_add(pages, Ordering::Relaxed).saturating_add(pages);
    if since >= EVICT_AFTER {
        PAGES.store(0, Ordering::Relaxed);
        typst::comemo::evict(usize::from(pages < EVICT_AFTER));
    }
}

fn typeset(
    template: &Template,
    world: &TemplateWorld<'_>,
    standard: Standard,
    made: &mut usize,
) -> Result<Vec<u8>, TypesetError> {
    let limits = &template.options;
    let document: PagedDocument = explained(template, typst::compile(world).output)?;
    let pages = document.pages().len();
    *made = pages;
    if pages > limits.pages {
        let message =
            format!("the document has {pages} pages; the limit is {}: give it less data, or split it", limits.pages);
        return Err(TypesetError::data("render_too_large", message));
    }
    let pdf = explained(template, typst_pdf::pdf(&document, &pdf_options(standard)?))?;
    if pdf.len() > limits.output {
        let message = format!(
            "the document has {} bytes; the limit is {}: use fewer or smaller images, or split it",
            pdf.len(),
            limits.output
        );
        return Err(TypesetError::data("render_too_large", message));
    }
    Ok(pdf)
}

/// No creation time is written, so that the same data give the same bytes. A template may set one.
fn pdf_options(standard: Standard) -> Result<PdfOptions, TypesetError> {
    let standards = PdfStandards::new(standard.list()).map_err(|_| TypesetError::internal())?;
    Ok(PdfOptions { standards, ..PdfOptions::default() })
}

/// The first error, with its place in the template as uploaded.
fn explained<T>(template: &Template, result: SourceResult<T>) -> Result<T, TypesetError> {
    result.map_err(|errors| match errors.first() {
        Some(first) => error_of(template, first),
        None => TypesetError::internal(),
    })
}

fn error_of(template: &Template, why: &SourceDiagnostic) -> TypesetError {
    let hints: String = why.hints.iter().map(|hint| format!(" (hint: {})", hint.v)).collect();
    let reported: String = format!("{}{hints}", why.message).chars().take(500).collect();
    let error = match missing_key(&why.message) {
        Some(key) => {
            let message = format!(
                "the template uses the field {key}, which is missing in the data; add it, or use .at({key}, default: …)"
            );
            TypesetError::data("undefined_variable", message)
        }
        None if why.message.starts_with("unable to get the current date") => {
            let message = "a template has no current date, so that the same data give the same document; pass the date in the data";
            TypesetError::data("render_failed", message)
        }
        None => TypesetError::data("render_failed", reported),
    };
    // An error inside typst's own code is reported at the template's call that led there.
    let calls = why.trace.iter().map(|point| DiagSpan::from(point.span));
    let place = std::iter::once(why.span).chain(calls).find_map(|span| start_of(&template.source, span));
    match place {
        Some(at) => error.at(Place::of(&template.text, template.metered.original(at))),
        None => error,
    }
}

/// The missing key, in quotes.
fn missing_key(message: &str) -> Option<&str> {
    let rest = message.strip_prefix(MISSING)?;
    Some(rest.split_once(" and no default").map_or(rest, |(key, _)| key))
}

/// The error for a rendering that unwound: a limit was exceeded, or typst panicked.
fn stopped(cause: &(dyn Any + Send), options: &Options) -> TypesetError {
    let message = match cause.downcast_ref::<LimitExceeded>() {
        Some(LimitExceeded::Steps) => {
            format!("typesetting takes more than {} loop iterations and function calls, the limit", options.steps)
        }
        Some(LimitExceeded::Time) => {
            format!("typesetting takes longer than {} ms, the limit", options.time.as_millis())
        }
        None => {
            tracing::warn!("typst panicked; document rejected");
            return TypesetError::internal();
        }
    };
    TypesetError::data("render_too_long", format!("{message}: give it less data, or simplify the template"))
}
