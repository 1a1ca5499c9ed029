//! Peers that speak HTTP/2 badly: frames of the wrong length, kind, flags or stream, broken header
//! blocks, floods, and connections that end in the middle.
//!
//! Job: [`play`], one connection with a few requests in it. A PING is sent last; its answer shows
//! that the server read everything before it.
//! Invariant: whatever comes back is frames that HTTP/2 knows, the first of them SETTINGS, and
//! never an error of the server's own.
//! Must never: understand header blocks of answers; the server's own count of statuses is judged
//! instead.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::checker::End;
use super::draft::Draft;
use super::peer::{self, DEADLINE, PATIENCE, source};
use super::{Campaign, bodies, templates};
use crate::support::Random;
use crate::support::raw_client::connect_from;

const KIND: &str = "HTTP/2";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_FRAME: usize = 16_384;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// On DATA and HEADERS; on SETTINGS and PING the same bit is the acknowledgement.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// Settings with which a connection lives, by their numbers: none, a table's size, pushes, streams,
/// a window, a frame, a head.
const USUAL: [u32; 7] = [65_535, 4096, 0, 100, 65_535, 16_384, 65_535];
const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];

/// One connection. Returns how many requests were in it.
pub(crate) async fn play(campaign: &Arc<Campaign>, number: u64, random: &mut Random) -> u64 {
    let requests = random.between(1, 6);
    let (frames, begins) = match random.index(8) {
        0 => (vec![opening(campaign, random)], false),
        // Cut anywhere.
        1 => {
            let mut bytes = conversation(campaign, requests, random).concat();
            bytes.truncate(random.index(bytes.len()));
            (vec![bytes], true)
        }
        _ => {
            let mut frames = conversation(campaign, requests, random);
            frames.push(frame(PING, 0, 0, &number.to_be_bytes()));
            (frames, true)
        }
    };
    let opened = async {
        let stream = connect_from(source(random), campaign.endpoint.address).await?;
        campaign.endpoint.shake_hands(&campaign.http2, stream).await
    };
    match opened.await {
        Ok(stream) => {
            exchange(campaign, number, stream, frames.concat(), (begins, random.index(8))).await
        }
        Err(error) => campaign.tally().violation(number, &format!("no connection: {error}"), b""),
    }
    requests
}

async fn exchange(
    campaign: &Arc<Campaign>,
    number: u64,
    mut stream: TlsStream<TcpStream>,
    sent: Vec<u8>,
    (begins, choice): (bool, usize),
) {
    let writing = async {
        stream.write_all(&sent).await?;
        stream.flush().await
    };
    // The server may have heard enough, and said so.
    let _ = timeout_at(Instant::now() + DEADLINE, writing).await;
    let mut answer = Answer::default();
    while let Ok(read) =
        timeout_at(Instant::now() + PATIENCE, stream.read_buf(&mut answer.bytes)).await
    {
        let is_closed = !matches!(read, Ok(1..));
        answer.take_frames(campaign, number, is_closed, &sent);
        if is_closed || answer.has_probe {
            campaign.tally().end(KIND, if is_closed { End::Closed } else { End::Kept });
            return;
        }
    }
    let permit = Arc::clone(&campaign.endings).try_acquire_owned();
    let (4.., Ok(permit)) = (choice, permit) else {
        campaign.tally().end(KIND, End::Left);
        return;
    };
    let campaign = Arc::clone(campaign);
    tokio::spawn(async move {
        let (_permit, deadline) = (permit, Instant::now() + DEADLINE);
        // Between two requests a connection may stay for longer than anybody waits here.
        let end = if begins { End::HalfClosed } else { End::WaitedOut };
        if end == End::HalfClosed {
            let _ = stream.shutdown().await;
        }
        while let Ok(read) = timeout_at(deadline, stream.read_buf(&mut answer.bytes)).await {
            let is_closed = !matches!(read, Ok(1..));
            answer.take_frames(&campaign, number, is_closed, &sent);
            if is_closed {
                campaign.tally().end(KIND, end);
                return;
            }
        }
        campaign.tally().violation(
            number,
            &format!("HTTP/2 is still open after {DEADLINE:?} ({end:?})"),
            &sent,
        );
    });
}

/// What came back so far.
#[derive(Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    frames: u64,
    has_probe: bool,
}

impl Answer {
    /// Takes whole frames off the front and judges them.
    fn take_frames(&mut self, campaign: &Campaign, number: u64, is_closed: bool, sent: &[u8]) {
        let mut taken = 0;
        while let [high, middle, low, kind, flags, stream @ ..] = &self.bytes[taken..] {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if stream.len() < 4 + length {
                break;
            }
            let (stream, payload) = (&stream[..4], &stream[4..4 + length]);
            let on_connection = [SETTINGS, PING, GOAWAY].contains(kind);
            let is_known =
                length <= LARGEST_FRAME && *kind <= CONTINUATION && *kind != PUSH_PROMISE;
            let is_first = self.frames > 0 || *kind == SETTINGS;
            if !is_known || !is_first || (on_connection && stream != [0; 4]) {
                let what = format!("no frame of HTTP/2: {}", self.bytes[taken..].escape_ascii());
                campaign.tally().violation(number, &what, sent);
            }
            let (name, code) = match *kind {
                RST_STREAM => ("HTTP/2 reset", payload.get(..4)),
                GOAWAY => ("HTTP/2 goaway", payload.get(4..8)),
                _ => ("", None),
            };
            if let Some([_, _, high, low]) = code {
                campaign.tally().status(name, u16::from_be_bytes([*high, *low]));
            }
            if code == Some(&INTERNAL_ERROR[..]) {
                let what = format!("an internal error: {}", self.bytes[taken..].escape_ascii());
                campaign.tally().violation(number, &what, sent);
            }
            self.has_probe |=
                *kind == PING && flags & END_STREAM != 0 && payload == number.to_be_bytes();
            self.frames += 1;
            taken += 9 + length;
        }
        self.bytes.drain(..taken);
        if is_closed && !self.bytes.is_empty() {
            campaign.tally().violation(
                number,
                &format!("a cut frame: {}", self.bytes.escape_ascii()),
                sent,
            );
            self.bytes.clear();
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What comes before the first request is complete, cut somewhere.
fn opening(campaign: &Campaign, random: &mut Random) -> Vec<u8> {
    let draft = templates::draft(&campaign.cast, random);
    let headers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_block(&draft, random));
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &settings(random)), &headers].concat();
    bytes.truncate(random.index(bytes.len()));
    bytes
}

/// Preface, settings, and requests with what is wrong about them.
fn conversation(campaign: &Campaign, requests: u64, random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = vec![frame(SETTINGS, 0, 0, &settings(random))];
    for stream in (1..).step_by(2).take(usize::try_from(requests).expect("a few")) {
        let mut draft = templates::draft(&campaign.cast, random);
        for _ in 0..random.pick(&[0, 0, 1, 2]) {
            peer::change(&mut draft, campaign, random);
        }
        frames.extend(request(&draft, stream, random));
        if random.one_in(12) {
            frames.push(odd_frame(stream, random));
        }
    }
    for _ in 0..random.pick(&[0, 0, 0, 0, 1, 2]) {
        let at = random.index(frames.len());
        spoil(&mut frames[at], random);
    }
    if random.one_in(8) {
        let at = random.index(frames.len());
        frames.insert(random.index(frames.len()), frames[at].clone());
    }
    let mut preface = PREFACE.to_vec();
    if random.one_in(32) {
        bodies::spoil(&mut preface, random);
    }
    frames.insert(0, preface);
    frames
}

fn settings(random: &mut Random) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..random.index(4) {
        let most = if random.one_in(12) { 9 } else { 6 };
        let name = u16::try_from(random.between(0, most)).expect("two bytes");
        let value =
            random.pick(&[0, 1, 2, 100, 16_383, 16_384, 65_535, 1 << 24, u32::MAX >> 1, u32::MAX]);
        let value = if random.one_in(12) { value } else { USUAL[usize::from(name) % USUAL.len()] };
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&u32::to_be_bytes(value));
    }
    payload
}

/// HEADERS, CONTINUATION where it is long, DATA where there is a body.
fn request(draft: &Draft, stream: u32, random: &mut Random) -> Vec<Vec<u8>> {
    let (block, body) = (header_block(draft, random), draft.content());
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let most = if random.one_in(6) { random.index(40) + 1 } else { LARGEST_FRAME };
    let mut pieces = block.chunks(most).take(64).peekable();
    let mut frames = Vec::new();
    while let Some(piece) = pieces.next() {
        let (kind, flags) = if frames.is_empty() { (HEADERS, ends) } else { (CONTINUATION, 0) };
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        frames.push(frame(kind, flags | last, stream, piece));
    }
    let mut chunks = body.chunks(LARGEST_FRAME).take(8).peekable();
    while let Some(piece) = chunks.next() {
        let last = if chunks.peek().is_none() && draft.cut_at.is_none() { END_STREAM } else { 0 };
        frames.push(frame(DATA, last, stream, piece));
    }
    frames
}

fn header_block(draft: &Draft, random: &mut Random) -> Vec<u8> {
    let mut target = draft.path.clone();
    if !draft.query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&draft.query);
    }
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b":method".to_vec(), draft.method.clone()),
        (b":scheme".to_vec(), b"https".to_vec()),
        (b":authority".to_vec(), b"localhost".to_vec()),
        (b":path".to_vec(), target),
    ];
    for line in draft.headers.iter().take(300) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        // HTTP/2 has these elsewhere, or not at all.
        if !name.eq_ignore_ascii_case(b"host") && !name.eq_ignore_ascii_case(b"connection")
            || random.one_in(40)
        {
            let value = value.get(1..).unwrap_or_default().trim_ascii_start();
            fields.push((name.to_ascii_lowercase(), value.to_vec()));
        }
    }
    if random.one_in(6) {
        let at = random.index(fields.len());
        match random.index(5) {
            0 => drop(fields.remove(at)),
            1 => fields.push(fields[at].clone()),
            2 => fields[at].0.make_ascii_uppercase(),
            3 => fields.push((b":unknown".to_vec(), b"x".to_vec())),
            _ => fields.push((
                b"content-length".to_vec(),
                random.pick(&[&b"7"[..], b"-1", b"99999999999999999999"]).to_vec(),
            )),
        }
    }
    let mut block = Vec::new();
    if random.one_in(40) {
        // An index that is none, a table larger than agreed, integers and strings without an end.
        let odd: &[u8] = random.pick(&[
            &b"\x80"[..],
            b"\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x3f\xff\xff\xff\x7f",
            b"\xbe",
            b"\x00\x83\xff\xff\xff\x01x",
            b"\x00\x7f\xff\xff\x7fx",
            b"\x82\x82",
        ]);
        block.extend_from_slice(odd);
    }
    for (name, value) in &fields {
        block.push(0x10);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// A string as header blocks write it, without Huffman's code.
fn string(text: &[u8], block: &mut Vec<u8>) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).expect("below 127"));
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128 + 128).expect("below 256"));
            rest /= 128;
        }
        block.push(u8::try_from(rest).expect("below 128"));
    }
    block.extend_from_slice(text);
}

/// Frames that a client has no reason to send, or too many of those that it has.
fn odd_frame(stream: u32, random: &mut Random) -> Vec<u8> {
    let other = random.pick(&[0, 2, stream, stream + 2, 1 << 20, u32::MAX]);
    let many = 1 << random.between(0, 8);
    match random.index(14) {
        0 => frame(DATA, END_STREAM, other, b"value=5"),
        1 => frame(DATA, PADDED, stream, b"\xffshort"),
        2 => frame(HEADERS, END_STREAM | END_HEADERS | PADDED, stream + 2, b"\xff\x82"),
        3 => frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[255]].concat()),
        4 => frame(RST_STREAM, 0, other, &[0, 0, 0, 8]),
        5 => frame(RST_STREAM, 0, stream, &[0, 0, 0]),
        6 => frame(SETTINGS, random.pick(&[0, END_STREAM]), other, &[0; 5]),
        7 => frame(SETTINGS, 0, 0, &[0, 9, 0, 0, 0, 0]).repeat(many),
        8 => frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82]),
        9 => frame(PING, 0, other, &[7; 8]).repeat(many),
        10 => frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11]),
        11 => frame(
            WINDOW_UPDATE,
            0,
            other,
            &random.pick(&[0_u32, 1, u32::MAX >> 1, u32::MAX]).to_be_bytes(),
        ),
        12 => frame(CONTINUATION, random.pick(&[0, END_HEADERS]), other, b"\x82").repeat(many),
        _ => frame(random.byte(), random.byte(), other, &vec![random.byte(); random.index(300)]),
    }
}

/// Changes a byte of the head or whatever else of a frame, which may have been cut short by an
/// earlier change.
fn spoil(frame: &mut Vec<u8>, random: &mut Random) {
    let (at, byte) = match random.index(6) {
        0 => (2, frame.get(2).map_or(0, |byte| byte.wrapping_add(random.pick(&[1, 255, 128])))),
        1 => (0, random.byte()),
        2 => (3, random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 200])),
        3 => (4, random.byte()),
        4 => (5 + random.index(4), random.byte()),
        _ => return bodies::spoil(frame, random),
    };
    if let Some(old) = frame.get_mut(at) {
        *old = byte;
    }
}
