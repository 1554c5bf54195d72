//! One rendering: data in, pages, a PDF out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value as Json;
use typst::diag::{SourceDiagnostic, SourceResult};
use typst::syntax::{DiagSpan, DiagSpanKind, Source};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandards};

use super::error::{Place, TypesetError};
use super::world::{Sheet, Stopped};
use super::{Options, Standard, Template};

/// Pages after which typst forgets what was not used for as many again. It keeps what it computed for all templates in one
/// place: some MB a page, of which the next document uses what is the same in both. To look through it takes a while.
const FORGET_AFTER: usize = 16;

/// Stack of one rendering, in bytes; what is not used is never there. typst lays out by recursion, and takes some 4 KB for
/// each fraction in a fraction: those of a thread end below 500.
const STACK: usize = 64 << 20;

/// Pages since typst last forgot.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// How typst begins to say that a field is missing.
const MISSING: &str = "dictionary does not contain key ";

/// Typesets a template.
pub(super) fn render(template: &Template, context: &Json, standard: Standard) -> Result<Vec<u8>, TypesetError> {
    let data = serde_json::to_vec(context).map_err(|why| TypesetError::data("data_malformed", why.to_string()))?;
    let options = &template.options;
    let sheet = Sheet::new(&template.source, data, options.steps, options.time);
    // Of a document that fails nobody knows how much was computed.
    let mut pages = FORGET_AFTER;
    stacker::grow(STACK, || {
        let work = || typeset(template, &sheet, standard, &mut pages);
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|cause| Err(stopped(cause.as_ref(), options)));
        forget(pages);
        done
    })
}

/// Bounds what typst keeps. Renderings on other threads go on meanwhile, and compute again what they miss.
fn forget(pages: usize) {
    let since = PAGES.fetch_add(pages, Ordering::Relaxed).saturating_add(pages);
    if since >= FORGET_AFTER {
        PAGES.store(0, Ordering::Relaxed);
        typst::comemo::evict(usize::from(pages < FORGET_AFTER));
    }
}

fn typeset(
    template: &Template,
    sheet: &Sheet<'_>,
    standard: Standard,
    made: &mut usize,
) -> Result<Vec<u8>, TypesetError> {
    let limits = &template.options;
    let document: PagedDocument = explained(template, typst::compile(sheet).output)?;
    let pages = document.pages().len();
    *made = pages;
    if pages > limits.pages {
        let message = format!(
            "the document has {pages} pages, more than the {} allowed; give it fewer data, or divide it",
            limits.pages
        );
        return Err(TypesetError::data("render_too_large", message));
    }
    let pdf = explained(template, typst_pdf::pdf(&document, &pdf_options(standard)?))?;
    if pdf.len() > limits.output {
        let message = format!(
            "the document has {} bytes, more than the {} allowed; use fewer or smaller pictures, or divide it",
            pdf.len(),
            limits.output
        );
        return Err(TypesetError::data("render_too_large", message));
    }
    Ok(pdf)
}

/// No time of making is written, so that the same data give the same bytes. A template may set one.
fn pdf_options(standard: Standard) -> Result<PdfOptions, TypesetError> {
    let standards = PdfStandards::new(standard.list()).map_err(|_| TypesetError::internal())?;
    Ok(PdfOptions { standards, ..PdfOptions::default() })
}

/// The first error, with its place in the template as it was written.
fn explained<T>(template: &Template, result: SourceResult<T>) -> Result<T, TypesetError> {
    result.map_err(|errors| match errors.first() {
        Some(first) => error_of(template, first),
        None => TypesetError::internal(),
    })
}

fn error_of(template: &Template, why: &SourceDiagnostic) -> TypesetError {
    let hints: String = why.hints.iter().map(|hint| format!(" (hint: {})", hint.v)).collect();
    let said: String = format!("{}{hints}", why.message).chars().take(500).collect();
    let error = match missing_key(&why.message) {
        Some(key) => {
            let message = format!(
                "the template uses the field {key}, which the data do not have; give it, or use .at({key}, default: …)"
            );
            TypesetError::data("undefined_variable", message)
        }
        None if why.message.starts_with("unable to get the current date") => {
            let message =
                "a template has no current date, so that the same data give the same document; give it in the data";
            TypesetError::data("render_failed", message)
        }
        None => TypesetError::data("render_failed", said),
    };
    // What happens within typst is told at the call that led there.
    let calls = why.trace.iter().map(|point| DiagSpan::from(point.span));
    let place = std::iter::once(why.span).chain(calls).find_map(|span| start_of(&template.source, span));
    match place {
        Some(at) => error.at(Place::of(&template.text, template.metered.original(at))),
        None => error,
    }
}

/// The key, in quotes, that a dictionary has not.
fn missing_key(message: &str) -> Option<&str> {
    let rest = message.strip_prefix(MISSING)?;
    Some(rest.split_once(" and no default").map_or(rest, |(key, _)| key))
}

/// Where a span begins in the source that is evaluated.
pub(super) fn start_of(source: &Source, span: DiagSpan) -> Option<usize> {
    if span.id() != Some(source.id()) {
        return None;
    }
    match span.get() {
        DiagSpanKind::Detached => None,
        DiagSpanKind::Number { num, sub_range, .. } => source.range(num, sub_range).map(|range| range.start),
        DiagSpanKind::Range { range, .. } => Some(range.start),
    }
}

/// What became of a rendering that unwound: its own bounds, or a fault of typst.
fn stopped(cause: &(dyn Any + Send), options: &Options) -> TypesetError {
    let message = match cause.downcast_ref::<Stopped>() {
        Some(Stopped::Steps) => {
            format!("typesetting takes more than the {} steps of loops and functions allowed", options.steps)
        }
        Some(Stopped::Time) => format!("typesetting takes longer than the {} ms allowed", options.time.as_millis()),
        None => {
            tracing::warn!("a template made typst panic; its document is refused");
            return TypesetError::internal();
        }
    };
    TypesetError::data("render_too_long", format!("{message}; give it fewer data, or simplify the template"))
}
