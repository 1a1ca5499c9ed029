//! Peers that do not come as far as HTTP: plain bytes on the TLS port, broken handshakes, broken
//! records in the middle of a connection.
//!
//! Job: [`play`].
//! Invariant: the server ends each of them, in clear with an error document or in TLS with an alert
//! or nothing, within the limit of a handshake.
//! Must never: hold up the campaign; peers that say nothing more wait beside it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::checker::{End, Sent};
use super::peer::{DEADLINE, PATIENCE, source};
use super::{Campaign, bodies, templates};
use crate::support::Random;
use crate::support::raw_client::connect_from;

const KIND: &str = "no TLS";
const BROKEN: &str = "broken TLS";
const CHANGE_CIPHER_SPEC: u8 = 20;
const APPLICATION_DATA: u8 = 23;

/// One connection. Returns how many requests it was, which is one.
pub(crate) async fn play(campaign: &Arc<Campaign>, number: u64, random: &mut Random) -> u64 {
    let (kind, bytes, after_handshake) = match random.index(4) {
        0 => (KIND, templates::draft(&campaign.cast, random).bytes(), false),
        1 => (BROKEN, client_hello(campaign, random), false),
        2 => (BROKEN, records(random), false),
        _ => (BROKEN, records(random), true),
    };
    let stream = match connect_from(source(random), campaign.endpoint.address).await {
        Ok(stream) => stream,
        Err(error) => {
            campaign.tally().violation(number, &format!("no connection: {error}"), b"");
            return 1;
        }
    };
    if after_handshake {
        match campaign.endpoint.shake_hands(&campaign.http1, stream).await {
            // What follows goes past TLS.
            Ok(tls) => talk(campaign, kind, number, tls.into_inner().0, bytes, random).await,
            Err(error) => {
                campaign.tally().violation(number, &format!("no handshake: {error}"), b"")
            }
        }
    } else {
        talk(campaign, kind, number, stream, bytes, random).await;
    }
    1
}

async fn talk(
    campaign: &Arc<Campaign>,
    kind: &'static str,
    number: u64,
    mut stream: TcpStream,
    bytes: Vec<u8>,
    random: &mut Random,
) {
    // What the server does not want to hear any more it may have answered.
    let _ = timeout_at(Instant::now() + DEADLINE, stream.write_all(&bytes)).await;
    let (mut read, choice) = (Vec::new(), random.index(8));
    while let Ok(Ok(count)) =
        timeout_at(Instant::now() + PATIENCE, stream.read_buf(&mut read)).await
    {
        if count == 0 {
            judge(campaign, kind, number, &bytes, read, End::Closed);
            return;
        }
    }
    let permit = Arc::clone(&campaign.endings).try_acquire_owned();
    let (4.., Ok(permit)) = (choice, permit) else {
        campaign.tally().end(kind, End::Left);
        return;
    };
    let campaign = Arc::clone(campaign);
    tokio::spawn(async move {
        let (_permit, deadline) = (permit, Instant::now() + DEADLINE);
        let end = if choice < 6 { End::HalfClosed } else { End::WaitedOut };
        if end == End::HalfClosed {
            let _ = stream.shutdown().await;
        }
        match timeout_at(deadline, stream.read_to_end(&mut read)).await {
            Ok(_) => judge(&campaign, kind, number, &bytes, read, end),
            Err(_) => {
                let what = format!("{kind} is still open after {DEADLINE:?} ({end:?})");
                campaign.tally().violation(number, &what, &bytes);
            }
        }
    });
}

/// In clear the answer is HTTP, otherwise a few records, of which an alert is the last.
fn judge(
    campaign: &Campaign,
    kind: &'static str,
    number: u64,
    sent: &[u8],
    mut read: Vec<u8>,
    end: End,
) {
    let mut tally = campaign.tally();
    tally.end(kind, end);
    if read.first().is_some_and(u8::is_ascii_uppercase) {
        tally.take_answers(kind, &mut read, &Sent { bundle: number, bytes: sent, probe: "" }, true);
        return;
    }
    let mut rest = &read[..];
    while let [content, 3, 0..=4, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(content) || after.len() < length {
            break;
        }
        rest = &after[length..];
    }
    if !rest.is_empty() {
        tally.violation(number, &format!("neither HTTP nor TLS: {}", rest.escape_ascii()), sent);
    }
}

/// A real first record of a handshake, spoiled or cut.
fn client_hello(campaign: &Campaign, random: &mut Random) -> Vec<u8> {
    let mut bytes = campaign.client_hello.clone();
    if random.one_in(4) {
        bytes.truncate(random.index(bytes.len()));
    } else {
        bodies::spoil(&mut bytes, random);
    }
    bytes
}

/// Something that looks like records from afar.
fn records(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.between(1, 4) {
        let announced = u16::try_from(random.pick(&[0, 1, 2, 5, 200, 16_384, 16_641, 65_535]))
            .expect("two bytes");
        let content = random.pick(&[0x16, 0x16, 0x15, 0x17, 0x14, 0x18, 0x80, 0xff]);
        bytes.extend_from_slice(&[
            content,
            random.pick(&[3, 3, 2, 0]),
            random.pick(&[1, 3, 4, 255]),
        ]);
        bytes.extend_from_slice(&announced.to_be_bytes());
        let sent = if random.one_in(3) { random.index(200) } else { usize::from(announced) };
        bytes.extend((0..sent).map(|_| random.byte()));
    }
    bytes
}
