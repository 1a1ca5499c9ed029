//! A client that goes away: one request on a connection of its own, which is cut at a chosen moment.
//!
//! Invariant: `Seen` says only what is certain. `Begun` is told after the first bytes of an answer with status 200 were read, so the change was
//! made; after `Sent` it may have been made, now or a little later; after `Partly` it can not have been.
//! Must never: read an answer to its end, or send a request twice.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::Random;
use super::client::{Client, Endpoint, Protocol};

/// The longest that a client waits before it goes away; an answer takes about as long.
const LONGEST_WAIT_US: u64 = 3000;
/// The first line of an answer of success, as far as it says so.
const SUCCESS: &[u8] = b"HTTP/1.1 200";

/// When the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After so many bytes, not all of them.
    Partly(usize),
    /// After the last byte.
    Sent,
    /// After the answer began: so many bytes are read at most.
    Begun(usize),
    /// This long after the last byte, unless the answer comes first.
    After(Duration),
    /// The same for one stream of HTTP/2, which is reset, and then its connection.
    Stream(Duration),
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    Partly,
    Sent,
    Begun,
}

/// A change: `PUT` or `POST` with a key, an idempotency key and perhaps JSON.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) bearer: String,
    pub(crate) once: String,
    pub(crate) body: String,
}

impl Change {
    /// The headers that it is sent with, whichever way.
    pub(crate) fn headers(&self) -> [(&str, &str); 3] {
        [("authorization", &self.bearer), ("idempotency-key", &self.once), ("content-type", "application/json")]
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in self.headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body));
        text.into_bytes()
    }

    /// One of the moments at which a client of this change may go away.
    pub(crate) fn moment(&self, random: &mut Random) -> Moment {
        let wait = Duration::from_micros(random.between(0, LONGEST_WAIT_US));
        match random.between(0, 5) {
            0 => Moment::Partly(random.index(self.bytes().len())),
            1 => Moment::Sent,
            2 => Moment::Begun(SUCCESS.len() + random.index(200)),
            3 => Moment::Stream(wait),
            _ => Moment::After(wait),
        }
    }

    /// Sends it and goes away; `reset` leaves with RST instead of FIN.
    ///
    /// # Errors
    /// That of the connection, when nothing was sent.
    pub(crate) async fn cut(
        &self,
        endpoint: &Endpoint,
        connector: &TlsConnector,
        moment: Moment,
        reset: bool,
    ) -> std::io::Result<Seen> {
        if let Moment::Stream(wait) = moment {
            let mut client = endpoint.connect(Protocol::Http2).await?;
            return Ok(self.cut_stream(&mut client, wait).await);
        }
        let mut stream = endpoint.open(connector).await?;
        if reset {
            stream.get_ref().0.set_zero_linger()?;
        }
        let bytes = self.bytes();
        let sent = if let Moment::Partly(length) = moment { &bytes[..length] } else { &bytes[..] };
        // What breaks now may have arrived all the same.
        let sending = async {
            stream.write_all(sent).await?;
            stream.flush().await
        };
        if sending.await.is_err() {
            return Ok(if sent.len() < bytes.len() { Seen::Partly } else { Seen::Sent });
        }
        let mut answer = [0; 512];
        let read = match moment {
            Moment::Partly(_) => return Ok(Seen::Partly),
            Moment::Begun(most) => stream.read(&mut answer[..most.min(512)]).await,
            Moment::After(wait) => tokio::time::timeout(wait, stream.read(&mut answer)).await.unwrap_or(Ok(0)),
            Moment::Sent | Moment::Stream(_) => Ok(0),
        };
        Ok(if answer[..read.unwrap_or(0)].starts_with(SUCCESS) { Seen::Begun } else { Seen::Sent })
    }

    async fn cut_stream(&self, client: &mut Client, wait: Duration) -> Seen {
        let headers = self.headers();
        let asking = client.request(self.method, &self.path, &headers, Bytes::from(self.body.clone()));
        match tokio::time::timeout(wait, asking).await {
            Ok(Ok(answer)) if answer.status == 200 => Seen::Begun,
            _ => Seen::Sent,
        }
    }
}
