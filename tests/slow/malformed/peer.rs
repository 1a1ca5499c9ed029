//! One peer that speaks HTTP/1.1 badly: writes bundles of requests, reads what comes back, and goes
//! on while the connection does.
//!
//! Job: [`Peer::play`]. Behind most bundles goes a probe, a valid request with an id of its own;
//! its answer shows that the server read everything and is ready for the next bundle on the same
//! connection. Where it does not come, the server waits for the rest of something: then the peer
//! leaves, closes its half, or waits until the server's limit ends it.
//! Invariant: what is sent depends on the seed and the bundle's number; only how long a peer waits
//! before it leaves depends on the machine.
//! Must never: count a silence within the server's limits as a fault.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::checker::{End, Sent};
use super::draft::Draft;
use super::{Campaign, bodies, heads, templates};
use crate::support::Random;
use crate::support::raw_client::{RawConnection, connect_from};

/// Silence after which a peer takes it that the server waits for more. Nothing is asserted of it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(40);
/// The longest that the server may keep a connection on which a request has begun: 8 s for a head,
/// or 5 s for a body and 1 s for the rest of it; then up to 1 s after its goodbye. The rest is for
/// a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8 + 1 + 4);
/// One byte each time: a peer that is slow and not silent.
const TRICKLE: Duration = Duration::from_millis(700);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection, and what was read and not yet understood.
type Link = RawConnection<Box<dyn Stream>>;

/// What a peer is about to send.
struct Bundle {
    number: u64,
    requests: u64,
    bytes: Vec<u8>,
    probe: String,
    /// Something of it is missing, so there is no sense in waiting for an answer.
    is_cut: bool,
}

impl Bundle {
    fn sent(&self) -> Sent<'_> {
        Sent { bundle: self.number, bytes: &self.bytes, probe: &self.probe }
    }
}

pub(crate) struct Peer {
    campaign: Arc<Campaign>,
    link: Option<Link>,
}

impl Peer {
    pub(crate) fn new(campaign: &Arc<Campaign>) -> Self {
        Self { campaign: Arc::clone(campaign), link: None }
    }

    /// One bundle over TLS, or in clear to the port that sends people on to HTTPS. Returns how many
    /// requests it had.
    pub(crate) async fn play(&mut self, number: u64, in_clear: bool, random: &mut Random) -> u64 {
        let kind = if in_clear { "plain port" } else { "HTTP/1.1" };
        let bundle = self.bundle(number, in_clear, random);
        let kept = self.link.take().filter(|_| !in_clear);
        let link = match kept {
            Some(link) => Ok(link),
            None => self.connect(in_clear, random).await,
        };
        let link = match link {
            Ok(link) => link,
            Err(error) => {
                self.campaign.tally().violation(number, &format!("no connection: {error}"), b"");
                return bundle.requests;
            }
        };
        let requests = bundle.requests;
        self.exchange(kind, link, bundle, random).await;
        requests
    }

    async fn connect(&self, in_clear: bool, random: &mut Random) -> std::io::Result<Link> {
        let stream: Box<dyn Stream> = if in_clear {
            Box::new(connect_from(source(random), self.campaign.http).await?)
        } else {
            let stream = connect_from(source(random), self.campaign.endpoint.address).await?;
            Box::new(self.campaign.endpoint.shake_hands(&self.campaign.http1, stream).await?)
        };
        Ok(RawConnection::new(stream))
    }

    fn bundle(&self, number: u64, in_clear: bool, random: &mut Random) -> Bundle {
        let most = if random.one_in(8) { random.between(2, 8) } else { 1 };
        let (mut bytes, mut is_cut, mut requests) = (Vec::new(), false, 0);
        while requests < most && !is_cut {
            is_cut = self.request(&mut bytes, random);
            requests += 1;
        }
        let mut probe = String::new();
        if !in_clear && !is_cut && !random.one_in(8) {
            probe = format!("probe-{number}");
            bytes.extend_from_slice(probe_request(&probe).as_bytes());
        }
        Bundle { number, requests, bytes, probe, is_cut }
    }

    /// Appends a request that is valid, or almost; true if its end is missing.
    fn request(&self, bytes: &mut Vec<u8>, random: &mut Random) -> bool {
        let cast = &self.campaign.cast;
        let mut draft = templates::draft(cast, random);
        let changes = random.pick(&[0, 1, 1, 1, 1, 1, 2, 2, 3]);
        for _ in 0..changes {
            change(&mut draft, &self.campaign, random);
        }
        let mut request = draft.bytes();
        if random.one_in(4) {
            bodies::spoil(&mut request, random);
        }
        if let Some(cut) = draft.cut_at {
            request.truncate(Random::seeded(cut).index(request.len().max(1)));
        }
        bytes.extend_from_slice(&request);
        draft.cut_at.is_some()
    }

    /// Sends a bundle and reads until it is known how the connection goes on.
    async fn exchange(
        &mut self,
        kind: &'static str,
        mut link: Link,
        bundle: Bundle,
        random: &mut Random,
    ) {
        let patience = if bundle.is_cut { Duration::ZERO } else { PATIENCE };
        let is_open = send(&mut link, &bundle.bytes, random).await;
        let mut silent_at = Instant::now() + patience;
        let (mut answered, choice) = (false, random.index(8));
        let end = loop {
            let read = match timeout_at(silent_at, link.read_more()).await {
                // What the peer could not send any more, the server had refused.
                Err(_) if is_open => return self.leave(kind, link, bundle, choice, answered),
                Err(_) => 0,
                Ok(read) => read.unwrap_or(0),
            };
            let taken =
                self.campaign.tally().take_answers(kind, &mut link.read, &bundle.sent(), read == 0);
            answered |= taken.is_answered;
            if taken.has_probe {
                self.link = Some(link);
                break End::Kept;
            }
            if read == 0 {
                break End::Closed;
            }
            silent_at = Instant::now() + patience;
        };
        self.campaign.tally().end(kind, end);
    }

    /// The server is silent. What takes time goes on beside the campaign, if there is room.
    fn leave(&self, kind: &'static str, link: Link, bundle: Bundle, choice: usize, answered: bool) {
        // Without a probe an answer may have been the last, and the connection idle, which it may
        // be for longer. What was read and not yet understood is the answer to a HEAD.
        let is_silent = !answered && link.read.is_empty();
        let is_pending = !bundle.probe.is_empty() || (is_silent && bundle.bytes.len() > 4);
        let end = match choice {
            6.. if is_pending => End::WaitedOut,
            4.. => End::HalfClosed,
            _ => End::Left,
        };
        let permit = Arc::clone(&self.campaign.endings).try_acquire_owned();
        let (End::WaitedOut | End::HalfClosed, Ok(permit)) = (end, permit) else {
            self.campaign.tally().end(kind, End::Left);
            return;
        };
        let campaign = Arc::clone(&self.campaign);
        tokio::spawn(async move {
            let _permit = permit;
            let end = ending(&campaign, kind, link, &bundle, end, choice.is_multiple_of(2)).await;
            campaign.tally().end(kind, end);
        });
    }
}

/// Waits until the server ends the connection, which it must.
async fn ending(
    campaign: &Campaign,
    kind: &'static str,
    mut link: Link,
    bundle: &Bundle,
    end: End,
    trickles: bool,
) -> End {
    let mut deadline = Instant::now() + DEADLINE;
    if end == End::HalfClosed {
        let _ = timeout_at(deadline, link.stream.shutdown()).await;
    } else if !bundle.probe.is_empty() {
        // The first probe may have ended exactly what was pending.
        let _ = timeout_at(deadline, link.send(probe_request(&bundle.probe).as_bytes())).await;
    }
    loop {
        let wait = if trickles { deadline.min(Instant::now() + TRICKLE) } else { deadline };
        let read = match timeout_at(wait, link.read_more()).await {
            Err(_) if Instant::now() < deadline => {
                let _ = timeout_at(deadline, link.send(b"a")).await;
                continue;
            }
            Err(_) => {
                let what = format!(
                    "a connection is still open after {DEADLINE:?} ({end:?}, trickles: {trickles})"
                );
                campaign.tally().violation(bundle.number, &what, &bundle.bytes);
                return end;
            }
            Ok(read) => read.unwrap_or(0),
        };
        let taken = campaign.tally().take_answers(kind, &mut link.read, &bundle.sent(), read == 0);
        if read == 0 {
            return end;
        }
        // Without a probe an answer is all that can be hoped for; what is read and not understood
        // is one to a HEAD.
        let has_any = bundle.probe.is_empty() && (taken.is_answered || !link.read.is_empty());
        if end == End::WaitedOut && (taken.has_probe || has_any) {
            return End::Late;
        }
        if taken.is_answered {
            deadline = Instant::now() + DEADLINE;
        }
    }
}

pub(crate) fn change(draft: &mut Draft, campaign: &Campaign, random: &mut Random) {
    let all: u64 = heads::CHANGES.iter().chain(bodies::CHANGES).map(|(weight, _)| weight).sum();
    let mut dice = random.between(0, all - 1);
    for (weight, change) in heads::CHANGES.iter().chain(bodies::CHANGES) {
        match dice.checked_sub(*weight) {
            Some(rest) => dice = rest,
            None => return change(draft, &campaign.cast, random),
        }
    }
}

fn probe_request(id: &str) -> String {
    format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\n\r\n")
}

/// In one piece, or in several. False when the server would not hear the rest.
async fn send(link: &mut Link, bytes: &[u8], random: &mut Random) -> bool {
    let pieces = if random.one_in(4) { random.between(2, 7) } else { 1 };
    let size = bytes.len().div_ceil(usize::try_from(pieces).expect("a few")).max(1);
    let deadline = Instant::now() + DEADLINE;
    for piece in bytes.chunks(size) {
        if !matches!(timeout_at(deadline, link.send(piece)).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}

/// Somewhere in 127.0.0.0/8.
pub(crate) fn source(random: &mut Random) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, random.byte(), random.byte().clamp(1, 254))
}
