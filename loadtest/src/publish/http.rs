//! Publishing over HTTP: each link posts one message at a time, over a connection that ends with the answer, as the gateway's
//! do.

use std::io::Write;

use super::Dialect;

/// HTTP/1.1, as far as the gateway's answers need it: a status line, a length, a body.
pub(super) struct Http {
    /// The header lines that are the same in every request.
    headers: String,
}

impl Http {
    pub(super) fn new(host: &str, token: Option<&str>) -> Self {
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Self { headers: format!("Host: {host}\r\n{authorization}") }
    }
}

impl Dialect for Http {
    fn window(&self) -> usize {
        1
    }

    fn may_end(&self) -> bool {
        true
    }

    fn request(&mut self, topic: &str, payload: &str, out: &mut Vec<u8>) {
        // `%` is legal in a topic, and the path is decoded; what else a topic consists of stands for itself. A `/`
        // divides the path as it divides the topic.
        let topic = topic.replace('%', "%25");
        write!(
            out,
            "POST /v1/topics/{topic} HTTP/1.1\r\n{}Connection: close\r\nContent-Length: {}\r\n\r\n{payload}",
            self.headers,
            payload.len()
        )
        .expect("writing to memory cannot fail");
    }

    fn answers(&mut self, input: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<usize, String> {
        let mut answers = 0;
        while let Some(len) = answer_len(input) {
            if !input.starts_with(b"HTTP/1.1 202 ") {
                return Err(format!("the gateway answered {:?}", String::from_utf8_lossy(&input[..len])));
            }
            input.drain(..len);
            answers += 1;
        }
        Ok(answers)
    }
}

/// How long the first answer is, if it has arrived whole.
fn answer_len(input: &[u8]) -> Option<usize> {
    let head_len = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&input[..head_len]).to_ascii_lowercase();
    let body_len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let len = head_len + body_len.and_then(|len| len.trim().parse().ok()).unwrap_or(0);
    (input.len() >= len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_post() {
        let mut out = Vec::new();
        Http::new("gateway:80", Some("t")).request("a/b%c", "{}", &mut out);
        let expected = "POST /v1/topics/a/b%25c HTTP/1.1\r\n\
            Host: gateway:80\r\nAuthorization: Bearer t\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_answer_counts_when_it_is_whole() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        let mut http = Http::new("", None);
        for cut in 0..answer.len() {
            assert_eq!(http.answers(&mut answer[..cut].to_vec(), &mut Vec::new()), Ok(0), "{cut} bytes");
        }
        let mut input = answer.repeat(2);
        assert_eq!(http.answers(&mut input, &mut Vec::new()), Ok(2));
        assert!(input.is_empty());
    }

    #[test]
    fn a_refusal_is_an_error_that_quotes_the_gateway() {
        let mut input =
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 20\r\n\r\n{\"code\":\"forbidden\"}".to_vec();
        let error = Http::new("", None).answers(&mut input, &mut Vec::new()).unwrap_err();
        assert!(error.contains("403") && error.contains("forbidden"), "{error}");
    }
}
