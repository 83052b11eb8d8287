//! Readers on threads of their own.

use super::*;

/// A source that another task lets go on, piece by piece.
fn fed(pieces: impl Iterator<Item = Vec<u8>>) -> (Source, Arc<Remote>) {
    let source = Source::new(pieces.flat_map(|piece| [Step::Wait, Step::Piece(Piece::Data(piece.into()))]));
    let remote = Arc::clone(&source.remote);
    (source, remote)
}

async fn read(mut body: ReplayBody<Source>, at_most: usize) -> Result<Vec<u8>, BoxError> {
    use http_body_util::BodyExt as _;
    let mut read = Vec::new();
    for _ in 0..at_most {
        let Some(frame) = body.frame().await else { break };
        read.extend_from_slice(&frame?.into_data().unwrap());
    }
    Ok(read)
}

/// 300 bodies, each read by four tasks at once, one of which gives up midway and one of which
/// starts late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_many_threads_all_reach_the_end() {
    let memory = memory(1 << 30);
    for round in 0..300_usize {
        let (source, remote) = fed((0..40).map(|n| vec![n; usize::from(n)]));
        let template = ReplayBody::within(memory, source, 1 << 20);
        let feeder = tokio::spawn(async move {
            for n in 0..40 {
                remote.go_on();
                if (n + round).is_multiple_of(1 + round % 5) {
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut readers = Vec::new();
        for at_most in [usize::MAX, round % 40, usize::MAX] {
            readers.push((at_most, tokio::spawn(read(template.replay().unwrap(), at_most))));
        }
        readers.push((usize::MAX, tokio::spawn(read(template, usize::MAX))));
        let expected: Vec<u8> = (0..40_u8).flat_map(|n| vec![n; usize::from(n)]).collect();
        for (at_most, reader) in readers {
            let read = reader.await.unwrap().unwrap();
            if at_most == usize::MAX {
                assert_eq!(read, expected);
            } else {
                assert!(expected.starts_with(&read));
            }
        }
        feeder.await.unwrap();
    }
    assert_eq!(memory.used(), 0);
}

/// With too little memory exactly one reader gets everything, whoever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_overflow_among_threads_leaves_one_reader_with_everything() {
    let memory = memory(1 << 30);
    for _ in 0..300 {
        let (source, remote) = fed((0..30).map(|_| vec![7; 100]));
        let template = ReplayBody::within(memory, source, 1_000);
        let readers: Vec<_> =
            (0..3).map(|_| tokio::spawn(read(template.replay().unwrap(), usize::MAX))).collect();
        for _ in 0..30 {
            remote.go_on();
            tokio::task::yield_now().await;
        }
        let mut whole = 0;
        for reader in readers {
            match reader.await.unwrap() {
                Ok(read) => {
                    assert_eq!(read.len(), 3_000);
                    whole += 1;
                }
                Err(error) => assert!(error.downcast_ref::<ReplayError>().unwrap().is_cut_off()),
            }
        }
        assert_eq!(whole, 1);
        assert!(!template.is_replayable());
    }
    assert_eq!(memory.used(), 0);
}
