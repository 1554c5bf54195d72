//! HTTP/2 clients that abuse the protocol, frame by frame, each next to an ordinary request that is answered.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::service::{Service, read_to_end, soon};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `GET http /health`, authority `localhost`, compressed with the static table only (RFC 7541).
const GET_HEALTH: &[u8] = b"\x82\x86\x04\x07/health\x01\x09localhost";

/// `POST http /v1/flows/describe`, authority `localhost`.
const POST: &[u8] = b"\x83\x86\x04\x12/v1/flows/describe\x01\x09localhost";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Plain or encrypted.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

type Reader = ReadHalf<Box<dyn Wire>>;
type Writer = WriteHalf<Box<dyn Wire>>;

async fn plain(service: &Service) -> Box<dyn Wire> {
    Box::new(TcpStream::connect(service.address).await.unwrap())
}

/// A frame from the server.
#[derive(Debug)]
struct Received {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame; `None` once the connection is closed in any way.
async fn next(reader: &mut Reader) -> Option<Received> {
    let mut head = [0; 9];
    soon(reader.read_exact(&mut head)).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    let mut payload = vec![0; length];
    soon(reader.read_exact(&mut payload)).await.ok()?;
    Some(Received { kind: head[3], flags: head[4], stream, payload })
}

/// The next frame of a kind.
async fn next_of(reader: &mut Reader, kind: u8) -> Received {
    loop {
        let frame = next(reader).await.expect("not closed");
        if frame.kind == kind {
            return frame;
        }
    }
}

/// An established connection, and the server's settings by their number.
async fn begin(wire: Box<dyn Wire>, settings: &[u8]) -> (Reader, Writer, Vec<(u16, u32)>) {
    let (mut reader, mut writer) = tokio::io::split(wire);
    writer.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.unwrap();
    let payload = next_of(&mut reader, SETTINGS).await.payload;
    let entry = |entry: &[u8]| {
        (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    };
    let said = payload.chunks(6).map(entry).collect();
    writer.write_all(&frame(SETTINGS, ACK, 0, b"")).await.unwrap();
    (reader, writer, said)
}

/// Sends a flood while the server reads it, and asserts that others are served and the server ends the connection.
async fn is_ended(service: &Service, flood: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let (reader, sending) = send(plain(service).await, flood).await;
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
    ends(reader, sending).await;
}

/// The same for a given connection.
pub async fn ends_on_ping_flood(wire: Box<dyn Wire>) {
    let (reader, sending) = send(wire, again(&frame(PING, 0, 0, &[0; 8]))).await;
    ends(reader, sending).await;
}

/// Requests `/health`; returns the first byte of the answer's headers, which encodes its status.
pub async fn health(wire: Box<dyn Wire>) -> u8 {
    let (mut reader, mut writer, _) = begin(wire, b"").await;
    writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_HEALTH)).await.unwrap();
    next_of(&mut reader, HEADERS).await.payload[0]
}

async fn send(
    wire: Box<dyn Wire>,
    flood: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> (Reader, JoinHandle<Option<Writer>>) {
    let (reader, mut writer, _) = begin(wire, b"").await;
    let sending = tokio::spawn(async move {
        for frames in flood {
            if writer.write_all(&frames).await.is_err() {
                return None;
            }
            tokio::task::yield_now().await;
        }
        // Stays open: the end must come from the server.
        Some(writer)
    });
    (reader, sending)
}

async fn ends(mut reader: Reader, sending: JoinHandle<Option<Writer>>) {
    while let Some(frame) = next(&mut reader).await {
        if frame.kind == GOAWAY {
            break;
        }
    }
    drop(reader);
    drop(soon(sending).await.unwrap());
}

/// The same frames over and over.
fn again(frames: &[u8]) -> impl Iterator<Item = Vec<u8>> + Send + 'static {
    let many = frames.repeat((16 << 10) / frames.len() + 1);
    std::iter::repeat_n(many, 10_000)
}

#[tokio::test]
async fn streams_headers_and_frames_are_bounded() {
    let service = Service::start("").await;
    let (mut reader, mut writer, settings) = begin(plain(&service).await, b"").await;
    let of = |number: u16| settings.iter().find(|(known, _)| *known == number).map(|(_, value)| *value);
    assert_eq!((of(3), of(6)), (Some(100), Some(16 << 10)), "{settings:?}");

    let asks = |stream: u32| frame(HEADERS, END_HEADERS, stream, POST);
    let many: Vec<u8> = (0..101).flat_map(|i| asks(2 * i + 1)).collect();
    writer.write_all(&many).await.unwrap();
    assert_eq!(next_of(&mut reader, RST_STREAM).await.stream, 201);

    // A header list that is too long, within the frame limit: 431.
    let (mut reader, mut writer, _) = begin(plain(&service).await, b"").await;
    let long = [GET_HEALTH, b"\x00\x01x\x7f\x81\x7b", &[b'y'; 15_872]].concat();
    let more = [b"\x00\x01x\x7f\x81\x7b".as_slice(), &[b'y'; 15_872]].concat();
    writer.write_all(&frame(HEADERS, END_STREAM, 1, &long)).await.unwrap();
    writer.write_all(&frame(CONTINUATION, END_HEADERS, 1, &more)).await.unwrap();
    let answer = next_of(&mut reader, HEADERS).await;
    // `:status`, and 431 Huffman-coded.
    assert_eq!(
        (answer.flags & END_STREAM, answer.payload.as_slice()),
        (END_STREAM, b"\x48\x83\x69\x90\xff".as_slice())
    );
}

#[tokio::test]
async fn floods_end_their_connection() {
    let service = Service::start("").await;
    let reset = |i: u32| {
        let stream = 2 * i + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_HEALTH), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    };
    is_ended(&service, (0..10_000).map(reset)).await;
    let at_once: Vec<u8> = (0..10_000).flat_map(reset).collect();
    is_ended(&service, std::iter::once(at_once)).await;
    is_ended(&service, again(&frame(PING, 0, 0, &[0; 8]))).await;
    is_ended(&service, again(&frame(SETTINGS, 0, 0, b""))).await;
    is_ended(&service, again(&frame(77, 0, 0, b"unknown"))).await;
    let open = frame(HEADERS, END_HEADERS, 1, POST);
    is_ended(&service, std::iter::once(open.clone()).chain(again(&frame(DATA, 0, 1, b"")))).await;
    let padding = frame(DATA, 0x8, 1, &[1, 0]);
    is_ended(&service, std::iter::once(open).chain(again(&padding))).await;
    let begun = frame(HEADERS, 0, 1, GET_HEALTH);
    is_ended(&service, std::iter::once(begun.clone()).chain(again(&frame(CONTINUATION, 0, 1, b"")))).await;
    let header = b"\x00\x01x\x01y".repeat(3_000);
    is_ended(&service, std::iter::once(begun).chain(again(&frame(CONTINUATION, 0, 1, &header)))).await;
}

#[tokio::test]
async fn headers_that_do_not_end_end_their_connection() {
    let service = Service::start("[limits]\nheader_ms = 300\n").await;
    let begun = frame(HEADERS, 0, 1, GET_HEALTH);
    is_ended(&service, std::iter::once(begun.clone())).await;
    is_ended(&service, std::iter::once(begun[..12].to_vec())).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_ended_and_one_with_them_is_not() {
    let service = Service::start("[limits]\nheader_ms = 200\nheartbeat_ms = 20\n").await;
    let (mut reader, mut writer, _) = begin(plain(&service).await, b"").await;
    writer
        .write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x86\x04\x12/v1/tail/documents\x01\x09localhost"))
        .await
        .unwrap();
    let (mut heartbeats, mut pinged) = (0, 0);
    // Longer than the idle timeout, with pings answered.
    while heartbeats < 50 {
        let received = next(&mut reader).await.expect("a connection in use stays open");
        match received.kind {
            DATA => {
                heartbeats += 1;
                let room = frame(WINDOW_UPDATE, 0, 0, &u32::try_from(received.payload.len()).unwrap().to_be_bytes());
                writer.write_all(&room).await.unwrap();
            }
            PING if received.flags & ACK == 0 => {
                pinged += 1;
                writer.write_all(&frame(PING, ACK, 0, &received.payload)).await.unwrap();
            }
            GOAWAY => panic!("{received:?}"),
            _ => {}
        }
    }
    assert!(pinged > 0);
    let silent = service.raw([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
    is_ended(&service, std::iter::empty()).await;
    let mut silent = silent;
    read_to_end(&mut silent).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_its_connection() {
    let service = Service::start("[limits]\nwrite_ms = 300\n").await;
    // The window of every stream is closed, and pings are answered.
    let (mut reader, mut writer, _) = begin(plain(&service).await, &[0, 4, 0, 0, 0, 0]).await;
    writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_HEALTH)).await.unwrap();
    while let Some(received) = next(&mut reader).await {
        assert_ne!(received.kind, DATA);
        if received.kind == PING && received.flags & ACK == 0 {
            let _ = writer.write_all(&frame(PING, ACK, 0, &received.payload)).await;
        }
    }
}
