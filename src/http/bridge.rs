//! The bridge between hyper's requests and responses and actix-web's App.
//!
//! Job: [`start`] makes the service of an App, [`respond`] passes one request to it. hyper uses
//! version 1 of the crate `http`, actix-web version 0.2, so names and values of headers are
//! converted.
//! Invariant: the App gets the request as it was received, without the headers that no handler
//! reads. The rest of an unread body is drained, up to a limit, since many clients read the
//! response only after they have sent the body.
//! Must never: decide about a request.

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

/// How much of an unread body is drained before the response.
const MAX_DRAINED_BYTES: usize = 1 << 20;
/// How long draining may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The service of an App on one worker. Its future is boxed, so that a connection that waits for
/// its next request does not reserve memory for it.
pub type AppService =
    Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Result<ServiceResponse, Error>>>>>;

/// Starts an App. Call it on the thread that will use it.
///
/// # Panics
/// If a factory in the App fails, which none of these Apps' factories can.
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
    let service = service.expect("no factory of routes, middleware or data can fail");
    Rc::new(move |request| Box::pin(service.call(request)))
}

/// Responds to one request. `rejection` is an error that the connection has found already.
pub async fn respond(
    app: &AppService,
    peer: Peer,
    request: hyper::Request<Incoming>,
    rejection: Option<ApiError>,
) -> hyper::Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let body =
        (!body.is_end_stream()).then(|| SharedBody::new(body, parts.headers.contains_key(EXPECT)));
    let payload: Payload = match &body {
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
    if let Some(body) = body {
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
        if is_unused(name) {
            continue;
        }
        let value = actix_web::http::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Some(name), Ok(value)) = (to_actix(name), value) {
            head.headers.append(name, value);
        }
    }
}

/// Whether no handler, extractor or middleware reads this header. Most clients send these, and to
/// skip them saves the conversion. Code that needs one of them must remove it from the list.
fn is_unused(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "user-agent" | "accept" | "accept-encoding" | "accept-language" | "connection"
    )
}

/// Converts actix-web's response to hyper's; the response to a `HEAD` has no body.
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
        // HTTP/2 must not send a body here; the length is that of the response to a GET.
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = ResponseBody::Whole(None);
    }
    response
}

/// Converts the value of a header. The values that most responses have are constants.
fn convert_value(value: &[u8]) -> Option<HeaderValue> {
    // `from_static` validates each character, so it must be evaluated at compile time.
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

/// A request's body, shared by the App, which reads it, and the bridge, which drains the rest.
#[derive(Clone)]
struct SharedBody(Rc<RefCell<BodyState>>);

struct BodyState {
    body: Incoming,
    /// The client waits for `100 Continue`, and the body was not read yet, which would send it.
    expects_continue: bool,
}

impl SharedBody {
    fn new(body: Incoming, expects_continue: bool) -> Self {
        Self(Rc::new(RefCell::new(BodyState { body, expects_continue })))
    }

    /// Reads and discards the rest of the body, up to a limit, unless the client waits for
    /// `100 Continue`.
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

impl Stream for SharedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.borrow_mut();
        state.expects_continue = false;
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut state.body).poll_frame(context)) {
                None => None,
                Some(Err(_)) => Some(Err(PayloadError::Incomplete(None))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Some(Ok(bytes)),
                    // Trailers are ignored.
                    Err(_) => continue,
                },
            });
        }
    }
}

/// The body of a response: one buffer, as almost all are, or a stream.
pub enum ResponseBody {
    /// The buffer, until it is sent.
    Whole(Option<Bytes>),
    /// Chunks that are made while they are sent.
    Stream(Pin<Box<BoxBody>>),
}

impl ResponseBody {
    fn of(body: BoxBody) -> Self {
        match body.try_into_bytes() {
            Ok(bytes) => Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())),
            Err(body) => Self::Stream(Box::pin(body)),
        }
    }

    /// The bytes of a body that is one buffer; empty for a stream.
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
            Self::Stream(body) => body.as_mut().poll_next(context).map(|chunk| {
                chunk.map(|chunk| chunk.map(Frame::data).map_err(|error| error.to_string().into()))
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
