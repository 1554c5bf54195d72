use super::*;
use pipeline::Submission;

fn message(headers: HeaderMap, payload: Bytes) -> Message {
    Message {
        subject: "ev.f.bulk".into(),
        reply: None,
        length: payload.len(),
        payload,
        headers: Some(headers),
        status: None,
        description: None,
    }
}

fn arrival(flow: &FlowName, answers: bool) -> Arrival<'_> {
    Arrival { flow, lane: Lane::Bulk, answers, attempt: 2, sequence: 9 }
}

fn submission() -> Submission {
    let flow = FlowName::new("f").unwrap();
    let mut envelope = Envelope::new(flow, Token::new("e1").unwrap());
    envelope.lane = Lane::Bulk;
    envelope.request = Some(Token::new("r1").unwrap());
    envelope.deadline = Some(OffsetDateTime::UNIX_EPOCH);
    envelope.traceparent = Some("00-abc-def-01".into());
    envelope.params.insert("report_id".into(), "ä\"\n".into());
    Submission { envelope, payload: Payload::Bytes(Content::inline("text/plain", "hello")) }
}

#[test]
fn an_envelope_survives_the_wire() {
    let sent = submission();
    let encoded = payload::encode(&sent.payload).unwrap();
    let headers = encode_headers(&sent.envelope, &encoded).unwrap();
    let flow = sent.envelope.flow.clone();
    let (got, payload) =
        decode(&message(headers, encoded.bytes), &arrival(&flow, false), &mut AttributeCache::default()).unwrap();
    let mut wanted = sent.envelope;
    wanted.attempt = 2;
    assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
    assert_eq!(format!("{payload:?}"), format!("{:?}", sent.payload));
}

#[test]
fn a_line_break_in_a_value_is_refused_without_a_panic() {
    for break_it in [
        |e: &mut Envelope| e.kind = "a\r\nNats-Rollup: all".into(),
        |e: &mut Envelope| e.source = "a\nNats-Msg-Id: 1".into(),
        |e: &mut Envelope| e.traceparent = Some("a\r".into()),
    ] {
        let mut sent = submission();
        break_it(&mut sent.envelope);
        let encoded = payload::encode(&sent.payload).unwrap();
        assert!(matches!(encode_headers(&sent.envelope, &encoded), Err(TransportError::Body(_))));
    }
    let mut sent = submission();
    sent.payload = Payload::Bytes(Content::inline("text/plain\r\nNats-Rollup: all", "x"));
    assert!(encode_headers(&sent.envelope, &payload::encode(&sent.payload).unwrap()).is_err());
}

#[test]
fn only_an_id_is_required_of_a_publisher() {
    let flow = FlowName::new("f").unwrap();
    let mut given = HeaderMap::new();
    put_message_id(&mut given, "m-1").unwrap();
    let (envelope, payload) =
        decode(&message(given, "x".into()), &arrival(&flow, true), &mut AttributeCache::default()).unwrap();
    assert_eq!(envelope.id.as_str(), "m-1");
    assert_eq!(envelope.request, Some(envelope.id.clone()));
    assert!(matches!(payload, Payload::Bytes(content) if &*content.media_type == "application/octet-stream"));
}

#[test]
fn an_mqtt_message_is_named_by_its_position() {
    let flow = FlowName::new("f").unwrap();
    let mut given = HeaderMap::new();
    put(&mut given, FROM_MQTT, "1").unwrap();
    let (envelope, _) =
        decode(&message(given, "x".into()), &arrival(&flow, false), &mut AttributeCache::default()).unwrap();
    assert_eq!(envelope.id.as_str(), "mqtt-9");
}

#[test]
fn a_header_that_is_present_must_be_well_formed() {
    let flow = FlowName::new("f").unwrap();
    for (name, text) in [
        (ID, "a.b"),
        (ID, "*"),
        (ID, ""),
        (REQUEST, ">"),
        (DEADLINE, "tomorrow"),
        (PARAMS, "[1]"),
        (CLAIM, "{\"id\": \"a.b\"}"),
        (TYPE, &"x".repeat(2000)),
        (CONTENT_TYPE, &"x".repeat(2000)),
        (PARAMS, &format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_HEADER))),
        (PARAMS, &format!(r#"{{"a": [{}1]}}"#, "1E15,".repeat(MAX_HEADER / 6))),
    ] {
        // As a publisher sends them, without our own limit.
        let mut given = headers(&[(name, text)]);
        if name != ID {
            put(&mut given, ID, "good").unwrap();
        }
        let decoded = decode(&message(given, Bytes::new()), &arrival(&flow, false), &mut AttributeCache::default());
        assert!(decoded.is_err(), "{name}: {text}");
    }
    let empty = message(HeaderMap::new(), Bytes::new());
    assert!(decode(&empty, &arrival(&flow, false), &mut AttributeCache::default()).is_err());
}

fn headers(given: &[(&str, &str)]) -> HeaderMap {
    given.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn the_case_of_header_names_makes_no_difference() {
    let flow = FlowName::new("f").unwrap();
    let given = headers(&[
        ("Ce-Id", "e1"),
        ("Content-Type", "Application/JSON"),
        ("caudal-params", r#"{"a": 1}"#),
        ("CAUDAL-REQUEST", "r1"),
    ]);
    let cache = &mut AttributeCache::default();
    let (envelope, payload) = decode(&message(given, "{}".into()), &arrival(&flow, true), cache).unwrap();
    assert_eq!((envelope.id.as_str(), envelope.request.as_ref().map(Token::as_str)), ("e1", Some("r1")));
    assert_eq!(envelope.params["a"], 1);
    assert!(matches!(payload, Payload::Json(_)));
}

#[test]
fn what_is_refused_keeps_its_id_request_and_body() {
    let flow = FlowName::new("f").unwrap();
    let long = "x".repeat(pipeline::INLINE_LIMIT + 1);
    let claim = format!(r#"{{"id": "c1", "length": 9, "sha256": "{}"}}"#, "0".repeat(64));
    for (given, body, event, request, kind) in [
        (vec![("Ce-Id", "e1")], &*long, "e1", Some("e1"), "bytes"),
        (vec![("ce-id", "a.b"), ("Nats-Msg-Id", "m1")], "x", "m1", Some("m1"), "bytes"),
        (vec![("ce-id", "e1"), ("Caudal-Request", "a b")], "x", "e1", Some("e1"), "bytes"),
        (vec![("ce-id", "e1"), ("Caudal-Request", "r1"), ("ce-time", "now")], "x", "e1", Some("r1"), "bytes"),
        (vec![("ce-id", "e1"), ("content-type", "application/json")], "{", "e1", Some("e1"), "bytes"),
        (vec![("ce-id", "e1"), ("Caudal-Deadline", "soon"), ("Caudal-Claim", &claim)], "", "e1", Some("e1"), "claim"),
    ] {
        let message = message(headers(&given), Bytes::copy_from_slice(body.as_bytes()));
        assert!(decode(&message, &arrival(&flow, true), &mut AttributeCache::default()).is_err(), "{given:?}");
        let (envelope, payload) = salvage(&message, &arrival(&flow, true)).unwrap();
        assert_eq!((envelope.id.as_str(), envelope.request.as_ref().map(Token::as_str)), (event, request), "{given:?}");
        let Payload::Bytes(content) = payload else { panic!("{given:?}") };
        assert_eq!(content.claim().is_some(), kind == "claim");
        assert_eq!(content.length(), if kind == "claim" { 9 } else { body.len() as u64 });
    }
    assert!(salvage(&message(headers(&[("ce-id", "a.b")]), Bytes::new()), &arrival(&flow, true)).is_none());
}

#[test]
fn in_a_flow_without_answers_only_who_names_a_request_is_told() {
    let flow = FlowName::new("f").unwrap();
    let of = |given: &[(&str, &str)]| {
        salvage(&message(headers(given), Bytes::new()), &arrival(&flow, false)).unwrap().0.request
    };
    assert_eq!(of(&[("ce-id", "e1")]), None);
    assert_eq!(of(&[("ce-id", "e1"), ("Caudal-Request", "a.b")]).as_ref().map(Token::as_str), Some("e1"));
}

#[test]
fn a_refusal_does_not_repeat_the_header() {
    let (flow, long) = (FlowName::new("f").unwrap(), "n".repeat(10_000));
    for (name, text) in [
        (PARAMS, format!("\"{long}\"")),
        (CLAIM, format!("\"{long}\"")),
        (CLAIM, format!("{{\"id\": \"{long}\"}}")),
        (DEADLINE, long.clone()),
        (REQUEST, long.clone()),
    ] {
        let given = headers(&[(ID, "good"), (name, &text)]);
        let message = message(given, Bytes::new());
        let refused = decode(&message, &arrival(&flow, false), &mut AttributeCache::default()).unwrap_err();
        assert!(refused.detail.contains(name) && refused.detail.len() < 300, "{refused}");
    }
}
