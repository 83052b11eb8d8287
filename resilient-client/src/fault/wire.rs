//! Faults at the wire of whatever sends requests: a client's attempts, or a tower service's.
//!
//! What is to be sent is drawn first. Mostly nothing comes of it, and the answer is that of the
//! wire. Otherwise the attempt waits, and then isn't sent at all, or is sent and has its answer
//! spoilt; either way what it gets has come over a [connection in memory](super::far_end).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{Extensions, Method};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::body::Spoilt;
use super::far_end::{Asking, FarEnd};
use super::faults::Faults;
#[cfg(feature = "testing")]
pub(crate) use super::machine::{Act, Answer as Made, Fault, Place, Spoil};
#[cfg(not(feature = "testing"))]
use super::machine::{Act, Fault, Place};
pub(crate) use super::rule::Asked;
use super::timer;
use crate::error::BoxError;

/// An answer that can be taken apart and put together anew.
pub(crate) trait Answer: Sized {
    /// What an answer knows besides its head: the URL, say.
    type About;
    type Body: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    fn take_apart(self) -> (Self::About, Parts, Self::Body);

    fn put_together(about: Self::About, parts: Parts, body: Incoming) -> Self;
}

/// The error of a connection that broke, as hyper had it.
#[derive(Debug)]
pub(crate) struct Broke(pub(crate) BoxError);

impl From<Broke> for BoxError {
    fn from(broke: Broke) -> Self {
        broke.0
    }
}

/// Marks an answer that nobody sent, from which nothing is learnt about the wire.
#[derive(Clone, Copy, Debug)]
struct NobodySent;

/// Whether nobody sent that answer.
pub(crate) fn is_made(extensions: &Extensions) -> bool {
    extensions.get::<NobodySent>().is_some()
}

/// What decides in the place of the wire: a test's script.
#[cfg(feature = "testing")]
pub(crate) trait Scripted: fmt::Debug + Send + Sync {
    /// What comes of a request, which nothing else is done with.
    fn decide(&self, asked: &Asked<'_>) -> Fault;
}

/// Faults for what is sent, if there are any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Injector(Option<Source>);

#[derive(Clone, Debug)]
enum Source {
    Faults(Faults),
    #[cfg(feature = "testing")]
    Script(std::sync::Arc<dyn Scripted>),
}

impl Source {
    fn draw<'a>(&self, asked: impl FnOnce() -> Asked<'a>) -> Option<Fault> {
        match self {
            Self::Faults(faults) => faults.draw(asked),
            #[cfg(feature = "testing")]
            Self::Script(script) => Some(script.decide(&asked())),
        }
    }
}

impl Injector {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(faults: Faults) -> Self {
        Self(Some(Source::Faults(faults)))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn scripted(script: impl Scripted + 'static) -> Self {
        Self(Some(Source::Script(std::sync::Arc::new(script))))
    }

    /// Whether a test's script answers, and nothing is ever sent.
    #[cfg(feature = "reqwest")]
    pub(crate) fn is_scripted(&self) -> bool {
        match &self.0 {
            None | Some(Source::Faults(_)) => false,
            #[cfg(feature = "testing")]
            Some(Source::Script(_)) => true,
        }
    }

    /// What happens to a request that is about to be sent.
    #[inline]
    pub(crate) fn draw<'a>(&self, asked: impl FnOnce() -> Asked<'a>) -> Drawn {
        let Some(source) = &self.0 else { return Drawn(None) };
        let mut method = Method::GET;
        let fault = source.draw(|| {
            let asked = asked();
            method.clone_from(asked.method);
            asked
        });
        Drawn(fault.map(|fault| Box::new((fault, method))))
    }
}

/// A fault, or none.
#[derive(Debug)]
pub(crate) struct Drawn(Option<Box<(Fault, Method)>>);

impl Drawn {
    /// What is done to a request with this method for sure.
    #[cfg(feature = "testing")]
    pub(crate) fn certain(fault: Fault, method: Method) -> Self {
        Self(Some(Box::new((fault, method))))
    }

    /// The attempt as it will go. `about` is what an answer would know that wasn't the wire's.
    #[inline]
    pub(crate) fn onto<F, A: Answer, E>(self, real: F, about: impl FnOnce() -> A::About) -> Faulted<F, A>
    where
        F: Future<Output = Result<A, E>>,
    {
        match self.0 {
            None => Faulted::Real { real },
            Some(drawn) => Faulted::Faulty { faulty: Box::pin(Faulty::new(real, *drawn, about())) },
        }
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

pin_project! {
    /// An attempt that may suffer a fault. Dropping it takes it off the wire.
    #[project = FaultedProj]
    pub(crate) enum Faulted<F, A: Answer> {
        Real { #[pin] real: F },
        Faulty { faulty: Pin<Box<Faulty<F, A>>> },
    }
}

/// The attempt on the wire, unless a fault is between. One that was only delayed is there when the
/// delay is over.
pub(crate) fn real<F, A: Answer>(attempt: &Faulted<F, A>) -> Option<&F> {
    match attempt {
        Faulted::Real { real } => Some(real),
        Faulted::Faulty { faulty } => faulty.real.as_ref().filter(|_| faulty.is_on_its_way()),
    }
}

/// The same, to be changed.
#[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "only there an attempt is told"))]
pub(crate) fn real_mut<F, A: Answer>(attempt: Pin<&mut Faulted<F, A>>) -> Option<Pin<&mut F>> {
    match attempt.project() {
        FaultedProj::Real { real } => Some(real),
        FaultedProj::Faulty { faulty } if faulty.is_on_its_way() => {
            faulty.as_mut().project().real.as_pin_mut()
        }
        FaultedProj::Faulty { .. } => None,
    }
}

impl<F, A: Answer, E> Future for Faulted<F, A>
where
    F: Future<Output = Result<A, E>>,
    E: From<Broke>,
{
    type Output = Result<A, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FaultedProj::Real { real } => real.poll(cx),
            FaultedProj::Faulty { faulty } => faulty.as_mut().poll(cx),
        }
    }
}

impl<F, A: Answer> fmt::Debug for Faulted<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if real(self).is_some() { "Real" } else { "Faulty" })
    }
}

pin_project! {
    /// An attempt that suffers a fault.
    pub(crate) struct Faulty<F, A: Answer> {
        delay: Option<Pin<Box<Sleep>>>,
        #[pin]
        real: Option<F>,
        act: Act,
        method: Method,
        about: Option<A::About>,
        place: Option<Place>,
        asking: Option<Asking>,
        // The head of the real answer, whose body has been spoilt.
        head: Option<Parts>,
    }
}

impl<F, A: Answer> Faulty<F, A> {
    /// Whether nothing but its delay was wrong with it, and that is over.
    fn is_on_its_way(&self) -> bool {
        self.delay.is_none() && matches!(self.act, Act::Serve)
    }

    fn new(real: F, (Fault { delay, act, place }, method): (Fault, Method), about: A::About) -> Self {
        let delay = timer(delay);
        Self {
            delay,
            real: Some(real),
            act,
            method,
            about: Some(about),
            place: Some(place),
            asking: None,
            head: None,
        }
    }
}

impl<F, A: Answer, E> Future for Faulty<F, A>
where
    F: Future<Output = Result<A, E>>,
    E: From<Broke>,
{
    type Output = Result<A, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // 1. It waits.
        if let Some(delay) = this.delay {
            ready!(delay.as_mut().poll(cx));
            *this.delay = None;
        }
        // 2. It isn't sent, or it is and has its answer spoilt.
        if this.asking.is_none() {
            let far_end = match &*this.act {
                Act::Serve => {
                    // That was all.
                    *this.place = None;
                    return poll_real(this.real.as_mut(), cx);
                }
                Act::Spoil(spoil) => {
                    let answer = ready!(poll_real(this.real.as_mut(), cx))?;
                    let (about, parts, body) = answer.take_apart();
                    *this.about = Some(about);
                    let Some(place) = this.place.take() else { return Poll::Pending };
                    let spoilt = Spoilt::new(body, *spoil, place);
                    FarEnd::passes_on(this.head.insert(parts), spoilt)
                }
                unsent => {
                    let Some(place) = this.place.take() else { return Poll::Pending };
                    match unsent {
                        Act::Answer(answer) => FarEnd::answers(answer, this.method, place),
                        Act::Garbage => FarEnd::garbles(place),
                        #[cfg(feature = "testing")]
                        Act::Refuse => FarEnd::refuses(place),
                        #[cfg(feature = "testing")]
                        Act::Spoilt(answer, spoil) => {
                            let (parts, body) = answer.in_parts();
                            FarEnd::passes_on(this.head.insert(parts), Spoilt::new(body, *spoil, place))
                        }
                        _ => FarEnd::resets(place),
                    }
                }
            };
            // What wasn't sent by now never is.
            this.real.set(None);
            *this.asking = Some(far_end.ask(this.method.clone()));
        }
        // 3. What there is comes over the connection in memory.
        let Some(asking) = this.asking else { return Poll::Pending };
        let answer = ready!(asking.as_mut().poll(cx)).map_err(Broke)?;
        let Some(about) = this.about.take() else { return Poll::Pending };
        let (mut parts, body) = answer.into_parts();
        parts.extensions.insert(NobodySent);
        // A head that was real stays as it came.
        Poll::Ready(Ok(A::put_together(about, this.head.take().unwrap_or(parts), body)))
    }
}

fn poll_real<F: Future>(real: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    real.as_pin_mut().map_or(Poll::Pending, |real| real.poll(cx))
}
