//! Readers on threads of their own.

use tokio::sync::mpsc;

use super::*;

/// A source fed by another task.
struct Fed(mpsc::Receiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

async fn read(mut body: ReplayBody<Fed>, at_most: usize) -> Result<Vec<u8>, BoxError> {
    use http_body_util::BodyExt as _;
    let mut read = Vec::new();
    for _ in 0..at_most {
        let Some(frame) = body.frame().await else { break };
        read.extend_from_slice(&frame?.into_data().unwrap());
    }
    Ok(read)
}

/// 300 bodies, each read by four tasks at once, one of which gives up midway and one of which starts late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_many_threads_all_reach_the_end() {
    let memory = memory(1 << 30);
    for round in 0..300_usize {
        let (sender, receiver) = mpsc::channel(1 + round % 3);
        let template = ReplayBody::within(memory, Fed(receiver), 1 << 20);
        let feeder = tokio::spawn(async move {
            for n in 0..40_u8 {
                sender.send(vec![n; usize::from(n)].into()).await.unwrap();
                if (usize::from(n) + round).is_multiple_of(5) {
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
        let (sender, receiver) = mpsc::channel(2);
        let template = ReplayBody::within(memory, Fed(receiver), 1_000);
        let readers: Vec<_> =
            (0..3).map(|_| tokio::spawn(read(template.replay().unwrap(), usize::MAX))).collect();
        for _ in 0..30 {
            sender.send(vec![7; 100].into()).await.unwrap();
        }
        drop(sender);
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
