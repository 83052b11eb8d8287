//! What a program finds that is moved from reqwest: its calls, forms, cookies, and the SDKs that it
//! gives its client to.

mod blocking;
mod calls;
mod cookies;
mod features;
mod forms;
mod sdks;
