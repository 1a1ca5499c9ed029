//! From hyper's request to actix-web's App and back.
//!
//! Job: [`start`] makes the service of an App, [`respond`] answers one request with it. The two
//! libraries have types of their own for the same things (`http` 1 and 0.2), so names and values of
//! headers are copied. Invariant: what the App sees is what came, but for headers that no handler
//! reads; a bounded rest of a body is read, so that its sender comes to read the response.
//! Must never: decide anything.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::PayloadError;
use actix_http::{Payload, Request};
use actix_service::IntoServiceFactory;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Service, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, Version};
use actix_web::{App, Error, HttpMessage};
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue};

use super::context::Peer;
use super::error::ApiError;
use super::header_names::{to_actix, to_hyper};
use super::middleware::access_log::Rejected;
use super::target;

/// How much of a body that nobody read is read before the response.
const MAX_DRAINED_BYTES: usize = 1 << 20;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The service of an App on one worker: a boxed call, so that a connection that waits for its next
/// request keeps no room for the App's whole future.
pub type AppService =
    Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Result<ServiceResponse, Error>>>>>;

/// Starts an App. Call it on the thread that will use it.
///
/// # Panics
/// If a factory in the App fails, which none of ours can.
pub async fn start<T>(app: App<T>) -> AppService
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<BoxBody>,
            Error = Error,
            InitError = (),
        > + 'static,
    T::Service: 'static,
{
    let service = app.into_factory().new_service(AppConfig::default()).await;
    let service =
        service.expect("routes, middleware and data of our Apps are made without failing");
    Rc::new(move |request| Box::pin(service.call(request)))
}

/// Answers one request. `rejection` is what the connection already found wrong with it.
pub async fn respond(
    app: &AppService,
    peer: Peer,
    request: hyper::Request<Incoming>,
    rejection: Option<ApiError>,
) -> hyper::Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let lent =
        (!body.is_end_stream()).then(|| LentBody::new(body, parts.headers.contains_key(EXPECT)));
    let payload: Payload = match &lent {
        Some(body) => Payload::Stream { payload: Box::pin(body.clone()) },
        None => Payload::None,
    };
    let mut request = Request::with_payload(payload);
    convert_head(&parts, peer, &mut request);
    if let Some(error) = rejection {
        request.extensions_mut().insert(Rejected(error));
    }
    let response = match app(request).await {
        Ok(response) => response.into_parts().1,
        Err(error) => error.error_response(),
    };
    if let Some(body) = lent {
        body.drain().await;
    }
    convert_response(response, parts.method == hyper::Method::HEAD)
}

fn convert_head(parts: &hyper::http::request::Parts, peer: Peer, request: &mut Request) {
    if let Peer::Unix { .. } = peer {
        request.extensions_mut().insert(peer);
    }
    let head = request.head_mut();
    head.peer_addr = if let Peer::Tcp(address) = peer { Some(address) } else { None };
    head.version = match parts.version {
        hyper::Version::HTTP_2 => Version::HTTP_2,
        hyper::Version::HTTP_10 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).unwrap_or(Method::OPTIONS);
    head.uri = target::for_router(parts.uri.path_and_query().map_or("/", |target| target.as_str()));
    for (name, value) in &parts.headers {
        if is_read_by_nobody(name) {
            continue;
        }
        let value = actix_web::http::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Some(name), Ok(value)) = (to_actix(name), value) {
            head.headers.append(name, value);
        }
    }
}

/// Headers that most clients send and no handler, extractor or middleware reads. Only what is copied
/// depends on this list: a header that somebody comes to read is to be taken off it.
fn is_read_by_nobody(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "user-agent" | "accept" | "accept-encoding" | "accept-language" | "connection"
    )
}

/// hyper's response from actix-web's; to a HEAD it has no body.
pub(super) fn convert_response(
    response: actix_web::HttpResponse,
    is_head: bool,
) -> hyper::Response<ResponseBody> {
    let (head, body) = response.into_parts();
    let mut response = hyper::Response::new(ResponseBody::of(body));
    *response.status_mut() =
        hyper::StatusCode::from_u16(head.status().as_u16()).unwrap_or_default();
    let headers = response.headers_mut();
    headers.reserve(head.headers().len() + 2);
    for (name, value) in head.headers() {
        if let (Some(name), Some(value)) = (to_hyper(name), convert_value(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    if is_head {
        // HTTP/2 must send no body here; the length stays what GET would say.
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = ResponseBody::Whole(None);
    }
    response
}

/// A value for hyper. Those that most responses have are not copied.
fn convert_value(value: &[u8]) -> Option<HeaderValue> {
    // Constants, since from_static looks at each character where it runs.
    const JSON_API: HeaderValue = HeaderValue::from_static("application/vnd.api+json");
    const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
    const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");
    match value {
        b"application/vnd.api+json" => Some(JSON_API),
        b"no-store" => Some(NO_STORE),
        b"max-age=31536000" => Some(A_YEAR),
        other => HeaderValue::from_bytes(other).ok(),
    }
}

/// A request's body, lent to the App for as long as it runs.
#[derive(Clone)]
struct LentBody(Rc<RefCell<Lent>>);

struct Lent {
    body: Incoming,
    /// The sender waits to be asked for the body, and was not asked yet.
    expects_continue: bool,
}

impl LentBody {
    fn new(body: Incoming, expects_continue: bool) -> Self {
        Self(Rc::new(RefCell::new(Lent { body, expects_continue })))
    }

    /// Reads and throws away a bounded rest. A sender that waits to be asked is not asked.
    async fn drain(self) {
        if self.0.borrow().expects_continue || self.0.borrow().body.is_end_stream() {
            return;
        }
        let rest = std::future::poll_fn(|context| {
            let mut drained = 0;
            while let Some(Ok(frame)) =
                ready!(Pin::new(&mut self.0.borrow_mut().body).poll_frame(context))
            {
                drained += frame.data_ref().map_or(0, Bytes::len);
                if drained > MAX_DRAINED_BYTES {
                    break;
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
    }
}

impl Stream for LentBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut lent = self.0.borrow_mut();
        lent.expects_continue = false;
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut lent.body).poll_frame(context)) {
                None => None,
                Some(Err(_)) => Some(Err(PayloadError::Incomplete(None))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Some(Ok(bytes)),
                    // Trailers, which nobody reads.
                    Err(_) => continue,
                },
            });
        }
    }
}

/// A response's body: one piece, as almost all are, or a stream.
pub enum ResponseBody {
    /// What is still to be sent.
    Whole(Option<Bytes>),
    /// Pieces that are made while they are sent.
    Stream(Pin<Box<BoxBody>>),
}

impl ResponseBody {
    fn of(body: BoxBody) -> Self {
        match body.try_into_bytes() {
            Ok(bytes) => Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())),
            Err(body) => Self::Stream(Box::pin(body)),
        }
    }

    /// The bytes of a body of one piece.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes.unwrap_or_default(),
            Self::Stream(_) => Bytes::new(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => body.as_mut().poll_next(context).map(|piece| {
                piece.map(|piece| piece.map(Frame::data).map_err(|error| error.to_string().into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match self {
            Self::Whole(bytes) => bytes.as_ref().map(|bytes| bytes.len() as u64).or(Some(0)),
            Self::Stream(body) => match body.size() {
                BodySize::Sized(bytes) => Some(bytes),
                _ => None,
            },
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
