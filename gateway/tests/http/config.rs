//! The gateway's config: valid sections are read, problems are reported with a remedy.

use gateway::spec::{BodyKind, Method};

use crate::service::{read, read_checked};

#[test]
fn a_valid_config_is_read() {
    let spec = read(
        r#"
        [service]
        name = "petalert"
        listen = "127.0.0.1:0"
        [limits]
        enabled = false
        memory = "64 MiB"
        [[route]]
        path = "/embeddings/index/{report_id}"
        flow = "describe"
        body = { multipart = "file", max_bytes = "10 MiB", types = ["image/*"] }
        query = { limit = { default = 10, min = 1, max = 100 }, format = { default = "pdf", one_of = ["pdf", "odt"] } }
        limit = { rate = "10/min", per = "client" }
        lane = "bulk"
        status = 201
        [[route]]
        path = "/reports/{report_id}"
        method = "GET"
        record = { store = "reports", id = "report_id" }
        "#,
    );
    assert_eq!((spec.service.name.as_str(), spec.limits.enabled), ("petalert", false));
    let [index, reports] = spec.routes.as_slice() else { panic!("{:?}", spec.routes) };
    assert_eq!((index.method, index.status, index.query.len()), (Method::Post, 201, 2));
    assert_eq!(index.body.kind, BodyKind::File("file".into()));
    assert_eq!(index.limit.unwrap().count.get(), 10);
    assert!(reports.reads_record() && reports.flow.is_none());
}

#[test]
fn every_problem_is_reported_with_a_remedy() {
    let cases = [
        (r#"path = "x""#, "does not begin with /"),
        (r#"path = "/health""#, "served by the gateway itself"),
        (r#"path = "/v1/requests/mine""#, "served by the gateway itself"),
        (r#"path = "/console""#, "served by the gateway itself"),
        (r#"path = "/a/{b""#, "segment \"{b\""),
        (r#"path = "/a/{b}.jpg""#, "segment \"{b}.jpg\""),
        (r#"path = "/a/{*rest}""#, "parameter {*rest}"),
        (r#"path = "/a/{b}/{b}""#, "parameter {b}"),
        (r#"path = "/a//b""#, "segment \"\""),
        ("path = \"/a\"\nmethod = \"BREW\"", "use one of GET, POST, PUT, DELETE"),
        ("path = \"/a\"\nstatus = 404", "status 404"),
        ("path = \"/a\"\nbody = { raw = true, json = true }", "exactly one of"),
        ("path = \"/a\"\nbody = { json = true, max_bytes = \"1 MiB\" }", "at most 256 KiB"),
        ("path = \"/a\"\nbody = { raw = true, types = [\"image\"] }", "not a media type"),
        ("path = \"/a\"\nmethod = \"GET\"\nbody = { raw = true }", "GET requests have no body"),
        ("path = \"/a\"\nquery = { n = { default = 5, min = 6 } }", "the default 5"),
        ("path = \"/a\"\nquery = { n = { default = 5, max_length = 6 } }", "number and as text"),
        ("path = \"/a\"\nlimit = { rate = \"10/week\" }", "is not a rate"),
        ("path = \"/a\"\nbody = { form = { json = \"r\", files = \"p\" } }", "add record ="),
        ("path = \"/a\"\nbody = { raw = true }\nrecord = { store = \"s\", id = \"i\" }", "only a form"),
        ("path = \"/a\"\nfolw = \"describe\"", "folw"),
    ];
    for (keys, expected) in cases {
        let (_, problems) = read_checked(&format!("[[route]]\nflow = \"describe\"\n{keys}\n"));
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{keys}: {problems:?}");
    }
}

#[test]
fn routes_are_checked_against_each_other_and_the_flows() {
    let route = |path: &str, method: &str, flow: &str| {
        format!("[[route]]\npath = \"{path}\"\nmethod = \"{method}\"\nflow = \"{flow}\"\n")
    };
    let duplicate = route("/a/{x}", "POST", "describe") + &route("/a/{x}/", "POST", "describe");
    let (_, problems) = read_checked(&duplicate);
    assert!(problems[0].contains("declared twice"), "{problems:?}");
    let (_, problems) = read_checked(&(route("/a/{x}", "POST", "describe") + &route("/a/{y}", "PUT", "describe")));
    assert!(problems[0].contains("name the parameters alike"), "{problems:?}");
    let (_, problems) = read_checked(&route("/a", "POST", "descirbe"));
    assert!(problems[0].contains("no flow is named \"descirbe\"") && problems[0].contains("describe"), "{problems:?}");
    let (_, problems) = read_checked("[[route]]\npath = \"/a\"\n");
    assert!(problems[0].contains("has no flow"), "{problems:?}");
    read(
        &(route("/a/{x}", "POST", "describe")
            + &route("/a/{x}", "GET", "describe")
            + &route("/a/b", "GET", "describe")),
    );
}

#[test]
fn a_certificate_is_two_files() {
    let spec = read("[service]\ntls = { cert = \"chain.pem\", key = \"key.pem\" }\n");
    assert_eq!(spec.service.tls.unwrap().key.to_str(), Some("key.pem"));
    for (keys, expected) in
        [("cert = \"c\"", "key"), ("cert = \"c\", key = \"k\", ca = \"x\"", "ca"), ("cert = 1", "string")]
    {
        let (_, problems) = read_checked(&format!("[service]\ntls = {{ {keys} }}\n"));
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{keys}: {problems:?}");
    }
}
