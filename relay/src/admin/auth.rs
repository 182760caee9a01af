//! HTTP Basic for the user `admin`.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::config::Password;

/// Lets a request pass that names the user `admin` and the password.
pub(super) async fn require(State(password): State<Password>, request: Request, next: Next) -> Response {
    if is_admin(request.headers(), &password) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"mainstem\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the user is admin, the password is in --admin-password-file\n")
        .into_response()
}

fn is_admin(headers: &HeaderMap, password: &Password) -> bool {
    let credentials = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| BASE64.decode(encoded.trim().as_bytes()).ok());
    let Some(credentials) = credentials else { return false };
    credentials.strip_prefix(b"admin:").is_some_and(|given| same(given, password.as_bytes()))
}

/// Compares in a time that tells nothing of the secret: digests, which differ everywhere or nowhere, bit by bit.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let (given, secret) = (Sha256::digest(given), Sha256::digest(secret));
    given.iter().zip(secret.iter()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_admin_with_the_password() {
        let password = Password::new("s3cret:ä").unwrap();
        for (value, expected) in [
            (format!("Basic {}", BASE64.encode("admin:s3cret:ä".as_bytes())), true),
            (format!("basic {}", BASE64.encode("admin:s3cret:ä".as_bytes())), true),
            (format!("Basic {}", BASE64.encode(b"admin:")), false),
            (format!("Basic {}", BASE64.encode(b"admin:s3cret")), false),
            (format!("Basic {}", BASE64.encode("root:s3cret:ä".as_bytes())), false),
            (format!("Bearer {}", BASE64.encode("admin:s3cret:ä".as_bytes())), false),
            ("Basic ???".to_owned(), false),
            ("Basic".to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            assert!(!is_admin(&headers, &password));
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
            assert_eq!(is_admin(&headers, &password), expected, "{value}");
        }
    }
}
