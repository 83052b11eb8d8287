//! All proxies by name, and what may be done to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::proxy::{Proxy, loopback};
use crate::toxic::{Toxic, ToxicSpec};

/// So that a loop gone wild ends with an error.
const MOST_PROXIES: usize = 100;
const MOST_TOXICS: usize = 32;

/// A proxy as a request asks for it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProxySpec {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// A loopback address and a port, or 0 for any. Default any port of 127.0.0.1.
    pub listen: Option<String>,
    /// Where it passes connections on to: a host and a port.
    #[serde(default)]
    pub upstream: String,
    /// Whether it listens. Default yes.
    pub enabled: Option<bool>,
}

/// A proxy as it is.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyView {
    /// Its name.
    pub name: String,
    /// Where it listens, or will.
    pub listen: SocketAddr,
    /// Where it passes connections on to.
    pub upstream: String,
    /// Whether it listens.
    pub enabled: bool,
    /// What it does to what goes through it.
    pub toxics: Vec<Toxic>,
}

impl ProxyView {
    fn new(name: &str, proxy: &Proxy) -> Self {
        let (listen, upstream, enabled) = (proxy.listen, proxy.upstream.clone(), proxy.is_enabled());
        Self { name: name.to_owned(), listen, upstream, enabled, toxics: proxy.toxics.borrow().to_vec() }
    }
}

/// All proxies. A clone has the same ones; they end with the last. To be used inside a tokio
/// runtime.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    proxies: BTreeMap<String, Proxy>,
    /// Toxics made so far.
    toxics: u64,
}

impl Proxies {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each by its name.
    pub async fn list(&self) -> BTreeMap<String, ProxyView> {
        let all = self.0.lock().await;
        all.proxies.iter().map(|(name, proxy)| (name.clone(), ProxyView::new(name, proxy))).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn show(&self, name: &str) -> Result<ProxyView, Error> {
        self.with(name, |proxy, _| Ok(ProxyView::new(name, proxy))).await
    }

    /// Another one.
    ///
    /// # Errors
    /// Its name is taken, something is missing, it may not listen there, or can't.
    pub async fn create(&self, spec: ProxySpec) -> Result<ProxyView, Error> {
        self.0.lock().await.create(spec).await
    }

    /// Several at once. One that is there already, the same, is enabled; another of its name gives
    /// way, unless what should take its place can't be had.
    ///
    /// # Errors
    /// Something is missing in one of them: then none is made. With those made before the first
    /// that couldn't be.
    pub async fn populate(&self, specs: Vec<ProxySpec>) -> Result<Vec<ProxyView>, (Vec<ProxyView>, Error)> {
        let mut made = Vec::new();
        for spec in &specs {
            if let Err(error) = spec.check() {
                return Err((made, error));
            }
        }
        let mut all = self.0.lock().await;
        for spec in specs {
            match all.populate(spec).await {
                Ok(view) => made.push(view),
                Err(error) => return Err((made, error)),
            }
        }
        Ok(made)
    }

    /// Moves it, or enables or disables it; what isn't given stays. One that can't be had where it
    /// should go goes on where it was.
    ///
    /// # Errors
    /// There is none of that name, it may not listen there, or can't.
    pub async fn update(&self, name: &str, spec: &ProxySpec) -> Result<ProxyView, Error> {
        let mut all = self.0.lock().await;
        let proxy = all.proxies.get_mut(name).ok_or(Error::ProxyNotFound)?;
        let listen = spec.listen.as_deref().map_or(Ok(proxy.listen), loopback)?;
        let upstream = if spec.upstream.is_empty() { &proxy.upstream } else { &spec.upstream }.clone();
        let enabled = spec.enabled.unwrap_or(proxy.is_enabled());
        if (listen, &upstream) != (proxy.listen, &proxy.upstream) {
            let before = (proxy.is_enabled(), proxy.listen, proxy.upstream.clone());
            proxy.enable(false).await?;
            (proxy.listen, proxy.upstream) = (listen, upstream);
            if let Err(error) = proxy.enable(enabled).await {
                (proxy.listen, proxy.upstream) = (before.1, before.2);
                proxy.enable(before.0).await?;
                return Err(error);
            }
        }
        proxy.enable(enabled).await?;
        Ok(ProxyView::new(name, proxy))
    }

    /// Ends one and its connections.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        self.0.lock().await.remove(name).await
    }

    /// Enables all and takes all toxics away.
    ///
    /// # Errors
    /// One can't listen where it did; the others are mended.
    pub async fn reset(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for proxy in self.0.lock().await.proxies.values_mut() {
            proxy.toxics.send_replace(Arc::from([]));
            first = first.and(proxy.enable(true).await);
        }
        first
    }

    /// A toxic more.
    ///
    /// # Errors
    /// There is no such proxy, one of that name already, or no such toxic can be.
    pub async fn add_toxic(&self, proxy: &str, spec: ToxicSpec) -> Result<Toxic, Error> {
        self.with(proxy, |proxy, id| {
            let toxic = Toxic::new(spec, id)?;
            let mut toxics = proxy.toxics.borrow().to_vec();
            if toxics.iter().any(|other| other.name == toxic.name) {
                return Err(Error::ToxicAlreadyExists);
            }
            if toxics.len() >= MOST_TOXICS {
                return Err(Error::TooMany("toxics a proxy", MOST_TOXICS));
            }
            toxics.push(toxic.clone());
            proxy.toxics.send_replace(toxics.into());
            Ok(toxic)
        })
        .await
    }

    /// One toxic of a proxy.
    ///
    /// # Errors
    /// There is no such proxy, or toxic.
    pub async fn toxic(&self, proxy: &str, toxic: &str) -> Result<Toxic, Error> {
        let view = self.show(proxy).await?;
        view.toxics.into_iter().find(|other| other.name == toxic).ok_or(Error::ToxicNotFound)
    }

    /// Changes a toxic; attributes that aren't given stay.
    ///
    /// # Errors
    /// There is no such proxy, or toxic, or it can't be so.
    pub async fn update_toxic(&self, proxy: &str, toxic: &str, spec: ToxicSpec) -> Result<Toxic, Error> {
        self.with(proxy, |proxy, _| {
            let mut toxics = proxy.toxics.borrow().to_vec();
            let old = toxics.iter_mut().find(|other| other.name == toxic).ok_or(Error::ToxicNotFound)?;
            let updated = old.updated(spec)?;
            *old = updated.clone();
            proxy.toxics.send_replace(toxics.into());
            Ok(updated)
        })
        .await
    }

    /// Takes a toxic away.
    ///
    /// # Errors
    /// There is no such proxy, or toxic.
    pub async fn remove_toxic(&self, proxy: &str, toxic: &str) -> Result<(), Error> {
        self.with(proxy, |proxy, _| {
            let mut toxics = proxy.toxics.borrow().to_vec();
            let index = toxics.iter().position(|other| other.name == toxic).ok_or(Error::ToxicNotFound)?;
            toxics.remove(index);
            proxy.toxics.send_replace(toxics.into());
            Ok(())
        })
        .await
    }

    /// With one of them, and a number that no toxic has had.
    async fn with<R>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Proxy, u64) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut all = self.0.lock().await;
        all.toxics += 1;
        let id = all.toxics;
        act(all.proxies.get_mut(name).ok_or(Error::ProxyNotFound)?, id)
    }
}

impl ProxySpec {
    fn check(&self) -> Result<(), Error> {
        match (&*self.name, &*self.upstream) {
            ("", _) => Err(Error::MissingField("name")),
            (_, "") => Err(Error::MissingField("upstream")),
            _ => Ok(()),
        }
    }
}

impl All {
    async fn create(&mut self, spec: ProxySpec) -> Result<ProxyView, Error> {
        spec.check()?;
        if self.proxies.contains_key(&spec.name) {
            return Err(Error::ProxyAlreadyExists);
        }
        if self.proxies.len() >= MOST_PROXIES {
            return Err(Error::TooMany("proxies", MOST_PROXIES));
        }
        let mut proxy = Proxy::new(loopback(spec.listen.as_deref().unwrap_or_default())?, spec.upstream);
        proxy.enable(spec.enabled.unwrap_or(true)).await?;
        let view = ProxyView::new(&spec.name, &proxy);
        self.proxies.insert(spec.name, proxy);
        Ok(view)
    }

    async fn remove(&mut self, name: &str) -> Result<(), Error> {
        let mut proxy = self.proxies.remove(name).ok_or(Error::ProxyNotFound)?;
        proxy.enable(false).await
    }

    async fn populate(&mut self, spec: ProxySpec) -> Result<ProxyView, Error> {
        let listen = loopback(spec.listen.as_deref().unwrap_or_default())?;
        let Some(proxy) = self.proxies.get_mut(&spec.name) else { return self.create(spec).await };
        if (listen.port() == 0 || proxy.listen == listen) && proxy.upstream == spec.upstream {
            proxy.enable(spec.enabled.unwrap_or(true)).await?;
            return Ok(ProxyView::new(&spec.name, proxy));
        }
        let was_enabled = proxy.is_enabled();
        // Its port may be the one that is asked for.
        proxy.enable(false).await?;
        let (name, before) = self.proxies.remove_entry(&spec.name).ok_or(Error::ProxyNotFound)?;
        let made = self.create(spec).await;
        if made.is_err() {
            let before = self.proxies.entry(name).or_insert(before);
            before.enable(was_enabled).await?;
        }
        made
    }
}
