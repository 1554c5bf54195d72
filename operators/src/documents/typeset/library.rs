//! typst's standard library, restricted: without functions that run code, and with limits where typst has none.
//!
//! `eval` and `plugin` are disabled, because metering would not see their code. `range`, `lorem` and products are
//! limited, because their arguments may come from the data. The functions that metering inserts into templates are
//! defined here.

use std::io::Cursor;
use std::sync::LazyLock;

use base64::Engine as _;
use image::ImageReader;
use typst::comemo::Tracked;
use typst::diag::{At as _, SourceResult, StrResult, bail};
use typst::engine::Engine;
use typst::foundations::{
    Args, Array, Binding, Bytes, CastInfo, Context, Func, IntoValue as _, NativeFunc as _, NativeFuncData,
    NativeFuncPtr, Scope, Value, ops,
};
use typst::syntax::Spanned;
use typst::text::lorem;
use typst::utils::LazyHash;
use typst::{Library, LibraryExt as _, World as _};

use super::metering::{LOADED, STEP_FONT, TICK, TIMES};

/// Elements of an array or a sequence that one call may create: 100 MB at most.
const MAX_ITEMS: u64 = 1_000_000;
/// Bytes of text that one call may create.
const MAX_TEXT: u64 = 16 << 20;
/// Words of placeholder text.
const MAX_WORDS: u64 = 100_000;
/// Pixels of an image in the data: 40 megapixels take 160 MB when decoded.
const MAX_PIXELS: u64 = 40_000_000;

/// The library of all templates.
pub(super) static LIBRARY: LazyLock<LazyHash<Library>> = LazyLock::new(|| {
    let mut library = Library::default();
    let scope = library.global.scope_mut();
    for (name, function) in [
        (TICK, &TICK_DATA),
        (TIMES, &TIMES_DATA),
        (LOADED, &LOADED_DATA),
        ("range", &RANGE_DATA),
        ("lorem", &LOREM_DATA),
        ("eval", &EVAL_DATA),
        ("plugin", &PLUGIN_DATA),
    ] {
        scope.bind(name.into(), Binding::detached(Func::from(function)));
    }
    library.std = Binding::detached(library.global.clone());
    LazyHash::new(library)
});

static TICK_DATA: NativeFuncData = native(TICK, &tick);
static TIMES_DATA: NativeFuncData = native(TIMES, &times);
static LOADED_DATA: NativeFuncData = native(LOADED, &loaded);
static RANGE_DATA: NativeFuncData = native("range", &range);
static LOREM_DATA: NativeFuncData = native("lorem", &bounded_lorem);
static EVAL_DATA: NativeFuncData = native("eval", &no_eval);
static PLUGIN_DATA: NativeFuncData = native("plugin", &no_plugin);

/// The signature of a native function.
type Native = dyn Fn(&mut Engine, Tracked<Context>, &mut Args) -> SourceResult<Value> + Send + Sync;

const fn native(name: &'static str, function: &'static Native) -> NativeFuncData {
    NativeFuncData {
        function: NativeFuncPtr(function),
        name,
        title: name,
        docs: "",
        def_site: None,
        keywords: &[],
        contextual: false,
        scope: LazyLock::new(&Scope::new),
        params: LazyLock::new(&Vec::new),
        returns: LazyLock::new(&|| CastInfo::Any),
    }
}

/// Counts one step. The world counts, since it is shared by all threads of a rendering.
fn tick(engine: &mut Engine, _: Tracked<Context>, _: &mut Args) -> SourceResult<Value> {
    engine.world.font(STEP_FONT);
    Ok(Value::None)
}

fn times(_: &mut Engine, _: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    let (left, right) = (args.expect::<Value>("left")?, args.expect::<Value>("right")?);
    let (made, most, what) = match (&left, &right) {
        (Value::Str(text), Value::Int(n)) | (Value::Int(n), Value::Str(text)) => {
            (made(text.as_str().len(), *n), MAX_TEXT, "bytes of text")
        }
        (Value::Array(array), Value::Int(n)) | (Value::Int(n), Value::Array(array)) => {
            (made(array.len(), *n), MAX_ITEMS, "elements")
        }
        (Value::Content(_), Value::Int(n)) | (Value::Int(n), Value::Content(_)) => (made(1, *n), MAX_ITEMS, "elements"),
        _ => (0, 0, ""),
    };
    within(made, most, what).at(args.span)?;
    ops::mul(left, right).at(args.span)
}

fn made(length: usize, times: i64) -> u64 {
    (length as u64).saturating_mul(u64::try_from(times).unwrap_or(0))
}

fn within(made: u64, most: u64, what: &str) -> StrResult<()> {
    if made > most {
        bail!("too many {what}: {made}, the limit is {most}; check the number that it is computed from");
    }
    Ok(())
}

fn range(engine: &mut Engine, context: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    let mut probe = args.clone();
    let first = probe.expect::<i64>("end")?;
    let (start, end) = probe.eat::<i64>()?.map_or((0, first), |second| (first, second));
    let step = probe.named::<i64>("step")?.unwrap_or(1).unsigned_abs().max(1);
    within(start.abs_diff(end) / step, MAX_ITEMS, "elements").at(args.span)?;
    (Array::range_data().function.0)(engine, context, args)
}

fn bounded_lorem(engine: &mut Engine, context: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    let words = args.clone().expect::<u64>("words")?;
    within(words, MAX_WORDS, "words").at(args.span)?;
    (lorem::data().function.0)(engine, context, args)
}

fn no_eval(_: &mut Engine, _: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    bail!(args.span, "eval is not available: a template cannot run code from text");
}

fn no_plugin(_: &mut Engine, _: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    bail!(args.span, "plugins are not available: a template can run only its own code");
}

/// What a template may load: bytes, and images as `data:` URLs. Paths are rejected here, before typst sees them: it
/// stores every path it is asked for forever, and after 65 535 of them it stops working for the whole process.
fn loaded(_: &mut Engine, _: Tracked<Context>, args: &mut Args) -> SourceResult<Value> {
    let source: Spanned<Value> = args.expect("source")?;
    match &source.v {
        Value::Bytes(_) => Ok(source.v),
        Value::Str(address) if address.as_str().starts_with("data:") => {
            image_bytes(address).map(|bytes| Bytes::new(bytes).into_value()).at(source.span)
        }
        Value::Str(path) => {
            let shown: String = path.as_str().chars().take(80).collect();
            bail!(
                source.span, "file {shown:?} does not exist: a template can only load its data, with json(\"data.json\")";
                hint: "pass an image as a data: URL, \"data:image/png;base64,…\"";
            )
        }
        other => bail!(source.span, "expected bytes or a data: URL, not {}", other.ty()),
    }
}

/// The bytes of a PNG, JPEG, GIF or WebP in a `data:` URL (RFC 2397).
fn image_bytes(address: &str) -> StrResult<Vec<u8>> {
    let Some((_, encoded)) = address.split_once(";base64,") else {
        bail!("a data: URL must hold base64: \"data:image/png;base64,…\"");
    };
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(encoded) else {
        bail!("this data: URL is not valid base64 after \";base64,\"");
    };
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let Some((width, height)) = reader.ok().and_then(|reader| reader.into_dimensions().ok()) else {
        bail!("this data: URL does not hold a readable image; expected PNG, JPEG, GIF or WebP");
    };
    within(u64::from(width) * u64::from(height), MAX_PIXELS, "pixels")?;
    Ok(bytes)
}
