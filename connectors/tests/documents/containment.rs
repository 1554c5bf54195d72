//! Containment: what a worker cannot do and a hostile document cannot reach, with each sandbox layer alone.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use connectors::documents::{Engine, Layers, Pool, SandboxLeak, StartError};
use pipeline::documents::{Converter as _, Format};

use crate::samples;
use crate::test_pool::{TestPool, config, count};

async fn leaks(layers: Layers) -> Vec<SandboxLeak> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.engine = Engine::Test;
    config.layers = layers;
    match Pool::start(config).await {
        Err(StartError::Refused { leaks, .. }) => leaks,
        Err(other) => panic!("{other}"),
        Ok(pool) => {
            pool.close().await;
            Vec::new()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_refuses_to_start_while_its_sandbox_leaks() {
    let all = Layers::default();
    assert_eq!(leaks(all).await, []);
    assert_eq!(leaks(Layers { namespaces: false, ..all }).await, [], "the other layers suffice");
    assert_eq!(leaks(Layers { seccomp: false, ..all }).await, [], "the other layers suffice");
    assert_eq!(leaks(Layers { landlock: false, ..all }).await, [SandboxLeak::Read, SandboxLeak::Write]);
    assert_eq!(leaks(Layers { environment: false, ..all }).await, [SandboxLeak::Environment]);
    let no_network_layer = Layers { namespaces: false, seccomp: false, landlock: false, ..all };
    assert!(leaks(no_network_layer).await.contains(&SandboxLeak::Connect));
    assert_eq!(
        leaks(Layers::NONE).await,
        [SandboxLeak::Connect, SandboxLeak::Read, SandboxLeak::Write, SandboxLeak::Environment]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_can_be_accepted_and_is_reported() {
    let pool = TestPool::with_test_engine(|config| {
        config.layers.landlock = false;
        config.require_sandbox = false;
    })
    .await;
    assert_eq!(pool.pool.containment().leaks, [SandboxLeak::Read, SandboxLeak::Write]);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_four_variables_no_privileges_and_no_network() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    assert!(pool.pool.containment().missing.is_empty(), "{:?}", pool.pool.containment());
    for pid in pool.workers(2).await {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let mut names: Vec<_> =
            environment.split_terminator('\0').map(|entry| entry.split('=').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["BRAND_BASE_DIR", "LANG", "TMPDIR", "TZ"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} of {status}");
        }
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(network(&pid.to_string()), network("self"));
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        assert!(limits.lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 ")), "{limits}");
    }
    pool.close().await;
}

/// A TCP server that counts connections and closes each at once.
struct ConnectionCounter {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl ConnectionCounter {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        Self { port, connections }
    }
}

/// Documents that link to an image elsewhere.
fn documents_linking_to(target: &str) -> Vec<(Format, Vec<u8>)> {
    let drawing = "<w:p><w:r><w:drawing><wp:inline><wp:extent cx=\"900000\" cy=\"900000\"/>\
        <wp:docPr id=\"1\" name=\"p\"/><a:graphic>\
        <a:graphicData uri=\"http://schemas.openxmlformats.org/drawingml/2006/picture\"><pic:pic>\
        <pic:nvPicPr><pic:cNvPr id=\"1\" name=\"p\"/><pic:cNvPicPr/></pic:nvPicPr>\
        <pic:blipFill><a:blip r:link=\"x1\"/><a:stretch><a:fillRect/></a:stretch></pic:blipFill>\
        <pic:spPr><a:xfrm><a:off x=\"0\" y=\"0\"/><a:ext cx=\"900000\" cy=\"900000\"/></a:xfrm>\
        <a:prstGeom prst=\"rect\"><a:avLst/></a:prstGeom></pic:spPr></pic:pic></a:graphicData></a:graphic>\
        </wp:inline></w:drawing></w:r></w:p>";
    let relationship = format!(
        "<Relationship Id=\"x1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/image\" \
         Target=\"{target}\" TargetMode=\"External\"/>"
    );
    let frame = format!(
        "<draw:frame text:anchor-type=\"paragraph\" svg:width=\"3cm\" svg:height=\"3cm\">\
         <draw:image xlink:href=\"{target}\" xlink:type=\"simple\" xlink:show=\"embed\" xlink:actuate=\"onLoad\"/></draw:frame>"
    );
    let field = format!("{{\\rtf1{{\\field{{\\*\\fldinst INCLUDEPICTURE \"{target}\" \\\\d}}{{\\fldrslt x}}}}\\par}}");
    vec![
        (Format::Docx, samples::docx(drawing, &relationship)),
        (Format::Odt, samples::open_document("text", &format!("<office:text><text:p>{frame}</text:p></office:text>"))),
        (Format::Rtf, field.into_bytes()),
        (Format::Html, format!("<html><body>text<img src=\"{target}\" width=99 height=99></body></html>").into_bytes()),
    ]
}

/// Number of images in the PDFs of documents that link to `target`, by format. A refused document counts as none.
async fn linked_images(pool: &TestPool, target: &str) -> Vec<(Format, usize)> {
    let mut found = Vec::new();
    for (format, input) in documents_linking_to(target) {
        let pdf = pool.convert(&input, format, Format::Pdf).await;
        found.push((format, pdf.map_or(0, |pdf| count(&pdf.files[0], "/Subtype/Image"))));
    }
    found
}

/// An image outside every worker's folder.
fn image_file(folder: &Path) -> String {
    let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 8) as u8, (y * 8) as u8, 128]));
    let path = folder.join("outside.png");
    image.save(&path).unwrap();
    format!("file://{}", path.display())
}

async fn pool_with(layers: Layers) -> TestPool {
    TestPool::with_libreoffice(|config| {
        config.layers = layers;
        config.require_sandbox = false;
    })
    .await
}

/// The layers that these tests turn on alone.
const PROFILE: Layers = Layers { profile: true, ..Layers::NONE };
const NAMESPACES: Layers = Layers { namespaces: true, ..Layers::NONE };
const SECCOMP: Layers = Layers { seccomp: true, ..Layers::NONE };
const LANDLOCK: Layers = Layers { landlock: true, ..Layers::NONE };

#[tokio::test(flavor = "multi_thread")]
async fn no_linked_image_is_fetched_from_the_network() {
    let server = ConnectionCounter::start();
    let target = format!("http://127.0.0.1:{}/x.png", server.port);
    let open = pool_with(Layers::NONE).await;
    linked_images(&open, &target).await;
    assert!(server.connections.swap(0, Ordering::SeqCst) > 0, "without layers, LibreOffice fetches it");
    open.close().await;
    for layers in [PROFILE, NAMESPACES, SECCOMP, LANDLOCK, Layers::default()] {
        let pool = pool_with(layers).await;
        let found = linked_images(&pool, &target).await;
        assert_eq!(server.connections.load(Ordering::SeqCst), 0, "{layers:?}");
        assert!(found.iter().all(|(_, images)| *images == 0), "{layers:?}: {found:?}");
        pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_linked_image_is_read_from_the_machine() {
    let outside = tempfile::tempdir().unwrap();
    let target = image_file(outside.path());
    let open = pool_with(Layers::NONE).await;
    let found = linked_images(&open, &target).await;
    assert!(found.iter().any(|(_, images)| *images > 0), "without layers, LibreOffice reads it");
    open.close().await;
    for layers in [PROFILE, LANDLOCK, Layers::default()] {
        let pool = pool_with(layers).await;
        let found = linked_images(&pool, &target).await;
        // LibreOffice ignores its own setting for RTF; that is why it is never the only layer.
        let excused = |format| layers == PROFILE && format == Format::Rtf;
        let contained = found.iter().all(|(format, images)| *images == 0 || excused(*format));
        assert!(contained, "{layers:?}: {found:?}");
        pool.close().await;
    }
}
