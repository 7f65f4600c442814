//! The page that an app opens in its hidden browser: `page.html` with a token in it, and the fields of the
//! response that carry its policy.

use std::io;

use mtproxy::proto::base64;
use mtproxy::proto::web::Place;

use crate::base::sys;

/// The page's text; the token and the number of its script are put in.
const PAGE: &str = include_str!("page.html");

/// The fields of the response, and its body.
pub fn page(place: &Place, token: &str) -> io::Result<(String, String)> {
    let once = base64::encode(&sys::random_array::<18>()?, base64::URL);
    let host = &place.host;
    let mut fields =
        String::from("Content-Type: text/html; charset=utf-8\r\nContent-Security-Policy: ");
    for what in NOTHING.split(' ') {
        fields += &format!("{what}-src 'none'; ");
    }
    fields += &format!(
        "base-uri 'none'; form-action 'none'; connect-src 'self' wss://{host}; \
         frame-ancestors http://127.0.0.1:*; script-src 'nonce-{once}'; \
         sandbox allow-same-origin allow-scripts\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
         X-DNS-Prefetch-Control: off\r\nPermissions-Policy: "
    );
    fields += &DENIED.replace(' ', "=(), ");
    fields += "=()\r\n";
    let body = PAGE.replace("{once}", &once).replace("{token}", token);
    Ok((fields, body))
}

/// Kinds of things that the page may not load.
const NOTHING: &str = "default child font frame img manifest media object style worker";
/// What it may not use of the machine.
const DENIED: &str = "accelerometer autoplay camera clipboard-read \
                      clipboard-write display-capture encrypted-media fullscreen gamepad geolocation \
                      gyroscope hid idle-detection magnetometer microphone midi payment \
                      publickey-credentials-get screen-wake-lock serial usb xr-spatial-tracking";
