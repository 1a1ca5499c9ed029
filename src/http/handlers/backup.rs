//! Backups for operators, through the admin socket.
//!
//! Job: `/backup` makes a backup of the whole store and sends it.
//! Invariant: the response has a `Content-Length`, so the client detects an incomplete backup.
//! Must never: hold a whole backup in memory, or block the serving thread on the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, Responder, post, web};
use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::http::context::{BackupMade, RequestContext, SecurityEvent};
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::operator::Operator;
use crate::http::extract::params::{NoParams, Params};
use crate::store::embedded::EmbeddedStore;

/// The size of the chunks that are read and sent.
const CHUNK_BYTES: u64 = 1 << 18;
const COMMIT_SEQ: HeaderName = HeaderName::from_static("odometer-commit-seq");
const RECORDS: HeaderName = HeaderName::from_static("odometer-records");

/// Makes a backup of the current state.
#[utoipa::path(tag = "internal")]
#[post("/backup")]
pub(crate) async fn make_backup(
    store: web::ThinData<EmbeddedStore>,
    req: HttpRequest,
    _: InOrder<(Operator, Params<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let context = RequestContext::of(&req);
    let (file, summary) = store.backup().await.map_err(|problem| {
        context.record(SecurityEvent::Backup(Err(problem.clone())));
        ApiError::BackupFailed(problem)
    })?;
    let (seq, records, bytes) = (summary.header.position.seq.0, summary.records, summary.bytes);
    context.record(SecurityEvent::Backup(Ok(BackupMade { commit_seq: seq, records, bytes })));
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
    response
        .insert_header((COMMIT_SEQ, HeaderValue::from(seq)))
        .insert_header((RECORDS, HeaderValue::from(records)));
    Ok(response.body(SizedStream::new(bytes, chunks(file, bytes))))
}

/// The first `length` bytes of a file in chunks, each read on a thread that may block on the disk.
fn chunks(file: File, length: u64) -> impl Stream<Item = io::Result<Bytes>> {
    let file = Arc::new(file);
    stream::try_unfold(0, move |offset| {
        let file = Arc::clone(&file);
        async move {
            let size = CHUNK_BYTES.min(length - offset);
            if size == 0 {
                return Ok(None);
            }
            let read = move || {
                let mut chunk = vec![0; usize::try_from(size).unwrap_or_default()];
                file.read_exact_at(&mut chunk, offset).map(|()| Bytes::from(chunk))
            };
            let chunk = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
            Ok(Some((chunk, offset + size)))
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[test]
    fn a_file_is_sent_in_its_order_and_a_short_one_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> =
            (0..CHUNK_BYTES * 2 + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let collect = |length| {
            let chunks = chunks(file.try_clone().unwrap(), length);
            runtime.block_on(chunks.try_collect::<Vec<_>>())
        };
        for length in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES * 2 + 7] {
            let sent = collect(length).unwrap();
            assert!(
                sent.iter().all(|chunk| (1..=CHUNK_BYTES).contains(&(chunk.len() as u64))),
                "{length}"
            );
            assert_eq!(sent.concat(), bytes[..usize::try_from(length).unwrap()], "{length}");
        }
        assert_eq!(collect(CHUNK_BYTES * 2 + 8).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
