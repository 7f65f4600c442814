//! `mtproxy service nginx` and `mtproxy service caddy`: the whole configuration of a web server in front of
//! web pages (--web). Called by `main`; all input is the operator's.
//!
//! The web server answers as the site whatever mtproxy answers with status 418, also while mtproxy is down.
//! Nothing of these requests is logged: their addresses hold capabilities.

use std::io::{self, Write};

use crate::operator::Fatal;
use crate::operator::options::{Config, Front, Listen};

/// Prints it to standard output.
pub fn print(config: &Config, front: Front) -> Result<(), Fatal> {
    let mut text = String::from(match front {
        Front::Nginx => include_str!("front/nginx.conf"),
        Front::Caddy => "# Proxy type WEB behind Caddy, by `mtproxy service caddy`.\n",
    });
    let mut hosts: Vec<&str> = config.web.iter().map(|place| place.host.as_str()).collect();
    hosts.sort();
    hosts.dedup();
    for host in hosts {
        let places = config.web.iter().filter(|place| place.host == host);
        let bases: Vec<String> = places.map(|place| place.base()).collect();
        let server = match front {
            Front::Nginx => {
                let each =
                    |base: &String| include_str!("front/location.conf").replace("{base}", base);
                let locations: String = bases.iter().map(each).collect();
                include_str!("front/server.conf").replace("{locations}", &locations)
            }
            Front::Caddy => {
                let each = |base: &String| format!(" {base} {base}api/v1/*");
                let paths: String = bases.iter().map(each).collect();
                include_str!("front/Caddyfile").replace("{paths}", &paths)
            }
        };
        text += &server.replace("{host}", host);
    }
    let relay = match (config.web_address(), front) {
        (Listen::Tcp(address), _) => address.to_string(),
        (Listen::Unix(path), Front::Nginx) => format!("unix:{}", path.display()),
        (Listen::Unix(path), Front::Caddy) => format!("unix/{}", path.display()),
    };
    let text = text.replace("{relay}", &relay);
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Fatal(format!("the configuration can't be written: {e}")))
}
