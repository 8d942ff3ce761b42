// Writes the vector files of tests/data from Go's standard library: one JSON object a line.
//
// Every input and every text result is base64, because neither need be UTF-8. Inputs are a fixed list of known
// corners plus random strings of tokens from a fixed seed, so a second run gives the same files.
//
// The types ACL, Access, … mirror the wire contract (§3), not any program: a status or access level is one of a few
// JSON words, a principal type takes any value, and the texts of the errors are the contract's.
//
// Run in tests/go:  GODEBUG=urlmaxqueryparams=0 go run ./vectors ../data
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var random = rand.New(rand.NewSource(20260701))

func soup(n, most int, tokens ...string) []string {
	var out []string
	for range n {
		var b strings.Builder
		for range 1 + random.Intn(most) {
			if random.Intn(12) == 0 {
				b.WriteByte(byte(random.Intn(256)))
			} else {
				b.WriteString(tokens[random.Intn(len(tokens))])
			}
		}
		out = append(out, b.String())
	}
	return out
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type line map[string]any

func write(name string, lines []line) {
	f, err := os.Create(filepath.Join(os.Args[1], name))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(f, "%s\n", text)
	}
}

// --- base64 ---

func base64Vectors() (lines []line) {
	inputs := []string{"", "\n", "YQ==", "YR==", "YQ=", "YQ", "Y", "YQ=x", "YQ==x", "YQ==\n", "YQ=\n=", "YQ=\nx", "=", "Y=", "YWFh", "YWFhY", "YWFhYQ", "YWF=", "YWF=x", "YWFhYWFhYWFhYWFh-", "a-b_", "a+b/"}
	inputs = append(inputs, soup(700, 9, "Y", "Q", "YWFh", "=", "==", "\n", "\r", "+", "/", "-", "_", "YWFhYWFh")...)
	for _, in := range inputs {
		std, stdErr := base64.StdEncoding.DecodeString(in)
		raw, rawErr := base64.RawURLEncoding.DecodeString(in)
		l := line{"in": b64(in), "std_error": errText(stdErr), "url_error": errText(rawErr)}
		if stdErr == nil {
			l["std"] = b64(string(std))
		}
		if rawErr == nil {
			l["url"] = b64(string(raw))
		}
		lines = append(lines, l)
	}
	return
}

// --- strconv ---

func numberVectors() (lines []line) {
	inputs := []string{"", "0", "00", "18446744073709551615", "18446744073709551616", "99999999999999999999999x", "1_0", "+1", "-1", " 1", "0x1", "1\"2", "\\", "a", "é", "\u00ad", "\u2028", "\U000e0001", "\U0010ffff", "世界", "\u0378", "\xff", "\xc3", "\xed\xa0\x80", "\x7f", "\a\b\f\n\r\t\v\x00"}
	inputs = append(inputs, soup(400, 5, "0", "9", "18446744073709551", "616", "x", "\"", "\\", "é", "\u0301", "\u200b", "\ufffd")...)
	for range 300 {
		inputs = append(inputs, string(rune(random.Intn(0x110000))))
	}
	for _, in := range inputs {
		n, err := strconv.ParseUint(in, 10, 64)
		l := line{"in": b64(in), "error": b64(errText(err)), "quoted": b64(strconv.Quote(in))}
		if err == nil {
			l["number"] = strconv.FormatUint(n, 10)
		}
		lines = append(lines, l)
	}
	return
}

// --- encoding/json ---

type invalidType string

func (e invalidType) Error() string { return "json: Invalid " + string(e) + " to convert" }

type kind int

var kinds = []string{"", "User", "UserGroup", "Machine", "MachinePrefix", "Service", "ServicePrefix"}

func (k *kind) UnmarshalJSON(b []byte) error {
	*k = -1
	for i, word := range kinds {
		if i > 0 && string(b) == strconv.Quote(word) {
			*k = kind(i)
		}
	}
	return nil
}

type level int

var levels = []string{"None", "Read", "Write", "Admin"}

func (l *level) UnmarshalJSON(b []byte) error {
	for i, word := range levels {
		if string(b) == strconv.Quote(word) {
			*l = level(i)
			return nil
		}
	}
	return invalidType("AccessType")
}

// Access is named so because Go's error texts name it.
type Access struct {
	Type  kind   `json:"type"`
	ID    string `json:"id"`
	Level level  `json:"access"`
}

type ACL []Access

// In the texts the package is the client library's, not this program's.
func knoxText(err error) string { return strings.ReplaceAll(errText(err), "main.", "knox.") }

func entries(acl []Access) (out []line) {
	out = []line{}
	for _, a := range acl {
		word := "unknown"
		switch {
		case a.Type == 0:
			word = "missing"
		case a.Type > 0:
			word = kinds[a.Type]
		}
		out = append(out, line{"type": word, "id": a.ID, "access": levels[a.Level]})
	}
	return
}

func jsonVectors() (lines []line) {
	inputs := []string{"", " ", "null", " null ", "nul", "n", "true", "tru", "false", "fals", "1", "-", "-1", "01", "1.", "1.5e", "1e+", "1e5x", `"a"`, `"a`, `"\`, `"\u`, `"\u12`, `"\x"`, "\"\n\"", "[]", "[", "[ ", "[1", "[1,", "[1,]", "[,]", "[]]", "{}", "{", "{ ", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a" 1}`, `{a}`, `{"a":1 2}`, "[1 2]", "{}x", "'", "\"", "\xff", "[\xff]", "\u00a0",
		`[null]`, `[{}]`, `[5]`, `["x"]`, `[true]`, `[[]]`, `{"type":"User"}`, `5`, `"s"`, `true`,
		`[{"type":"User","id":"a","access":"Read"}]`, `[{"TYPE":"User","Id":"a","aCCeSS":"Read"}]`, `[{"acceſſ":"Read"}]`, `[{"\u0061ccess":"Read"}]`, `[{"type":"\u0055ser"}]`, `[{"type":"user"}]`, `[{"type":null}]`, `[{"type":5}]`, `[{"type":{"a":[1]}}]`, `[{"type":"User","type":"Machine"}]`,
		`[{"id":"a","id":null}]`, `[{"id":"a","id":"b"}]`, `[{"id":5}]`, `[{"id":true}]`, `[{"id":[]}]`, `[{"id":{}}]`, `[{"id":"a","id":5}]`, `[{"access":null}]`, `[{"access":"read"}]`, `[{"access":5}]`, `[{"access":"Read","access":"Foo"}]`, `[{"id":5},{"access":"Foo"}]`, `[5,{"id":5}]`, `[{"id":5},5]`, `[{},5]`,
		`[{"x":{"access":"Foo"},"id":"a"}]`, `[{"x":"}","id":"a"}]`, `[{"x":"\"","id":"a"}]`, `[{"x":[{"y":"]"}],"id":"a"}]`,
		`[{"id":"\ud83d\ude00\ud83d\u0041\ude00\ud83d\ud83d\ude00\\\/\b\f\n\r\t\""}]`, "[{\"id\":\"\xff\xe2\x82 \xed\xa0\x80é\"}]", "[{\"id\xff\":\"a\"}]", `[{"id":"\uD800"}]`, `[{"id":"\u0000"}]`,
		"e30", "bnVsbA", "W10", "eyJ0eXBlIjoiVXNlciIsImlkIjoiYSIsImFjY2VzcyI6IlJlYWQifQ", "eyJ0\neXBlIjoiVXNlciJ9", "eyJ", "eyJhY2Nlc3MiOiJGb28ifQ", "bnVsbA==", "1234",
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000), strings.Repeat("[", 10001), strings.Repeat(`{"a":`, 10001), `[{"x":` + strings.Repeat("[", 9998) + strings.Repeat("]", 9998) + `}]`,
		`[{"x":` + strings.Repeat("9", 400) + `e` + strings.Repeat("9", 400) + `}]`}
	inputs = append(inputs, soup(900, 10, "{", "}", "[", "]", ",", ":", `"type":`, `"id":`, `"access":`, `"User"`, `"Read"`, `"x":`, "null", "true", "1", "-", "0", ".5", "e", `"a"`, `"\u`, "d800", " ", "[{", "}]")...)
	word := func(words ...string) string { return words[random.Intn(len(words))] }
	for range 500 {
		var b strings.Builder
		for i := range random.Intn(4) {
			if i > 0 {
				b.WriteString(word(",", ",", ",", ", ", ";"))
			}
			b.WriteString(word("{", "{", "{", "{", "5,{", "null,{"))
			for j := range random.Intn(4) {
				if j > 0 {
					b.WriteString(",")
				}
				b.WriteString(word(`"type":"User"`, `"type":"Service"`, `"type":"X"`, `"type":null`, `"id":"a"`, `"id":"b\u00e9"`, `"id":null`, `"id":7`, `"ID":{}`, `"access":"Read"`, `"access":"Admin"`, `"Access":"None"`, `"access":"x"`, `"access":null`, `"y":[{}]`))
			}
			b.WriteString("}")
		}
		inputs = append(inputs, "["+b.String()+"]", b.String())
	}
	for _, in := range inputs {
		acl := make(ACL, 0)
		aclErr := json.Unmarshal([]byte(in), &acl)
		put := []Access{}
		putErr := json.Unmarshal([]byte(in), &put)
		l := line{"in": b64(in), "create_error": knoxText(aclErr), "put_error": knoxText(putErr)}
		if aclErr == nil {
			l["acl"] = entries(acl)
		}
		one, oneErr := accessField(in)
		l["access_error"] = knoxText(oneErr)
		if oneErr == nil {
			l["access"] = entries([]Access{one})
		}
		lines = append(lines, l)
	}
	return
}

// The rule of §4.6 step 1: JSON, else unpadded URL-safe base64 of JSON, whose text wins.
func accessField(in string) (one Access, err error) {
	if json.Unmarshal([]byte(in), &one) == nil {
		return one, nil
	}
	one = Access{}
	decoded, err := base64.RawURLEncoding.DecodeString(in)
	if err != nil {
		return one, err
	}
	return one, json.Unmarshal(decoded, &one)
}

func stringVectors() (lines []line) {
	inputs := []string{"", "plain", "<a>&\"\\", "\u2028\u2029\u2027", "\x00\x01\x1f\x7f\b\f\n\r\t", "\xff\xfe", "\xe2\x80", "\xe2\x82\xac\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "é世\U0001f600\ufffd"}
	inputs = append(inputs, soup(400, 8, "a", "<", "\"", "\\", "\u2028", "\xe2", "\x80", "\xa8", "é", "\x01", "\xf0\x9f", "\ufffd")...)
	for _, in := range inputs {
		text, err := json.Marshal(in)
		if err != nil {
			panic(err)
		}
		lines = append(lines, line{"in": b64(in), "json": b64(string(text))})
	}
	return
}

// --- net/http forms ---

func formVectors() (lines []line) {
	form := "application/x-www-form-urlencoded"
	types := []string{form, form + "; charset=utf-8", strings.ToUpper(form), " " + form + " ", form + ";", form + " ; ", form + ";;", form + "; =x", form + "; a", form + "; a=", form + `; a=""`, form + `; a="x`, form + `; a="\"x\\y\z"`, form + "; a=1; a=2", form + "; a=1; A=1", form + "; a=1 b=2", form + "; a=1;b=2;", form + "; a*0=1; a*0=2", form + "; a*=x", form + "; a = 1", form + ",x", form + " x", "application/json", "multipart/form-data; boundary=x", "text/plain", "", "x", "/", "applİcation/x-www-form-urlencoded", form + ";\u00a0a=1", form + "; é=1", form + "; a=é", form + `; a="é"`, form + "; ="}
	type request struct{ ct, query, body string }
	var requests []request
	for _, ct := range types {
		requests = append(requests, request{ct, "", "id=a&data=b"})
	}
	for _, tail := range soup(150, 6, ";", " ", "=", "a", "b", "\"", "\\", "*", "*0", "x=1", "; ", "\u00a0", "é") {
		requests = append(requests, request{form + tail, "", "id=a&data=b"})
	}
	bodies := []string{"", "id", "id=", "=", "&&", "id=a&id=b", "id=a;data=b", "id=a&data=b;", "i%64=a", "id=%zz", "id=a&%zz", "id=a+b%2B", "id=a=b", "data=b&x=%4", "id=%00%ff"}
	bodies = append(bodies, soup(400, 9, "id", "data", "=", "=", "&", "&", ";", "%41", "%4", "%zz", "+", "a", "%69d")...)
	for i, body := range bodies {
		query := ""
		if i%5 == 0 {
			query = soup(1, 4, "id=q", "&", ";", "%zz", "a")[0]
		}
		requests = append(requests, request{form, query, body})
	}
	for _, q := range requests {
		r := &http.Request{Method: "POST", URL: &url.URL{RawQuery: q.query}, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(q.body))}
		if q.ct != "" {
			r.Header.Set("Content-Type", q.ct)
		}
		l := line{"type": b64(q.ct), "query": b64(q.query), "body": b64(q.body)}
		// Each declared field asks for the form to be parsed; only the first to ask sees the error.
		for _, name := range []string{"id", "data"} {
			if r.ParseForm() == nil && r.PostForm[name] != nil {
				l[name] = b64(r.PostForm[name][0])
			}
		}
		lines = append(lines, l)
	}
	return
}

func queryVectors() (lines []line) {
	inputs := []string{"", "=", "&&", "%zz", "k=a;b", "a=1&a=2", "status=\"Active\"", "status=&status=x", "a&b=", "%61=%62", "a=+%2b"}
	inputs = append(inputs, soup(500, 9, "status", "a", "=", "=", "&", "&", ";", "%41", "%4", "%zz", "+", "\"", "%61")...)
	for _, in := range inputs {
		values, _ := url.ParseQuery(in)
		last := map[string]string{}
		for name, all := range values {
			last[b64(name)] = b64(all[len(all)-1])
		}
		l := line{"in": b64(in), "last": last}
		if all := values["status"]; all != nil {
			l["status"] = b64(all[0])
		}
		lines = append(lines, l)
	}
	return
}

// --- request targets ---

var routes = []struct{ name, method, pattern string }{
	{"list", "GET", `^/v0/keys/$`},
	{"create", "POST", `^/v0/keys/$`},
	{"read", "GET", `^/v0/keys/([^/]+)/$`},
	{"delete", "DELETE", `^/v0/keys/([^/]+)/$`},
	{"acl", "GET", `^/v0/keys/([^/]+)/access/$`},
	{"put_access", "PUT", `^/v0/keys/([^/]+)/access/$`},
	{"add_version", "POST", `^/v0/keys/([^/]+)/versions/$`},
	{"update_version", "PUT", `^/v0/keys/([^/]+)/versions/([^/]+)/$`},
}

// The contract's router (§1) as a handler of Go's own server: cleans the decoded path, then matches it.
func router(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	clean := p
	if clean == "" || clean[0] != '/' {
		clean = "/" + clean
	}
	slash := strings.HasSuffix(clean, "/")
	if clean = path.Clean(clean); slash && clean != "/" {
		clean += "/"
	}
	if clean != p {
		u := *r.URL
		u.Path = clean
		w.Header().Set("Location", u.String())
		w.WriteHeader(301)
		return
	}
	known := false
	for _, route := range routes {
		m := regexp.MustCompile(route.pattern).FindStringSubmatch(p)
		known = known || m != nil
		if m == nil || route.method != r.Method {
			continue
		}
		parts := []string{route.name}
		for _, part := range m[1:] {
			parts = append(parts, b64(part))
		}
		w.Header().Set("Route", strings.Join(parts, " "))
		return
	}
	if known {
		w.WriteHeader(405)
	} else {
		w.WriteHeader(404)
	}
}

func routeVectors() (lines []line) {
	server := httptest.NewServer(http.HandlerFunc(router))
	defer server.Close()
	targets := []string{"/v0/keys/", "/v0/keys", "/v0/keys/K/", "/v0/keys/K", "/v0/keys/K/access/", "/v0/keys/K/versions/", "/v0/keys/K/versions/7/", "/v0/keys/K/versions/7", "/v0/keys/K/x/", "/v0/keys/K/access/1/", "/v0/keys/K%2Faccess/", "/v0/keys/a%3Ab/", "/v0/keys/a%20b/", "/v0/keys/a%0Ab/", "/v0/keys/%00/", "/v0/keys/%ff/", "/v0/keys/\xff/", "/v0/keys/a%2F%2Fb/", "/v0/keys/%2e%2e/x", "/v0//keys/?status=\"Active\"", "/v0/./keys/?", "/v0/keys/../keys/", "/..", "/.", "//", "/", "//h/x//", "/a/..", "/a/../", "/a!'()*\"<>[]|^`{}//", "/a?b?c", "/a//?b?c", "/a//#f?q", "*", "*?", "*?x", "http://h/v0/keys/", "http://h", "http://h?q", "HTTP://u:p@h:80/a//b?q", "http://u@h/a//b", "http:a", "http:", "http:/a//b", "http:///a//b", "http://[::1]/a//", "http://[::1]:8/a//", "http://[::1%25e%20h]/a//", "http://[::1%25]/a//", "http://[1.2.3.4]/", "http://h:x/", "http://a:b:1/", "ftp://a:b:1/x//", "http://%41/", "http://%ff/a//", "http://é/a//", "http://u é@h/", "http://u%40:p%3a@h/a//", ":x", "1:x", "a:b?c", "x", "?q", "h:443", "h", "/%", "/%4", "/%zz/", "/\x7f", "/a\x01", "/?\x7f", "/?\xff", "/v0/keys/é/", "/v0/keys/é//"}
	targets = append(targets, soup(700, 8, "/", "/", "v0", "keys", "/v0/keys/", "/v0/keys/", "..", ".", "%2e", "%2F", "%", "?", "\"", "access/", "versions/", "7", "K", "#", "a%20b", ":", "é", "!", "%41")...)
	targets = append(targets, soup(300, 8, "http://", "http:", "x:", "h", "/", "//", "@", ":", "80", "[", "]", "::1", "%25", "%41", "?", "..", "u", "<", "é")...)
	for _, target := range targets {
		if strings.ContainsAny(target, " \r\n") || target == "" {
			continue // Not one request line.
		}
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "OPTIONS", "CONNECT", "HEAD"} {
			if method != "GET" && random.Intn(3) > 0 {
				continue
			}
			lines = append(lines, ask(server.Listener.Addr().String(), method, target))
		}
	}
	return
}

func ask(addr, method, target string) line {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", method, target)
	answer, _ := io.ReadAll(conn)
	head, _, _ := strings.Cut(string(answer), "\r\n\r\n")
	l := line{"method": method, "target": b64(target), "status": strings.Fields(head)[1]}
	for _, header := range strings.Split(head, "\r\n")[1:] {
		name, value, _ := strings.Cut(header, ": ")
		switch name {
		case "Location":
			l["location"] = b64(value)
		case "Route":
			l["route"] = value
		}
	}
	return l
}

// --- SPIFFE URLs ---

func spiffeVectors() (lines []line) {
	inputs := []string{"spiffe://dom", "spiffe://dom/", "SPIFFE://dom/a/", "spiffe:///a/", "spiffe://", "spiffe:", "spiffe:dom/", "spiffe:/dom/", "spiffe://u@/", "spiffe://u@h/", "spiffe://:80/", "spiffe://h:x/", "spiffe://h:/", "spiffe://a:b:1/", "spiffe://[::1]/", "spiffe://[::1/", "spiffe://x[::1]/", "spiffe://[fe80::1%25en0]/", "spiffe://[::ffff:1.2.3.4]/", "spiffe://d m/", "spiffe://d%20m/", "spiffe://d%c3%a9/", "spiffe://dé/", "spiffe://dom/%zz/", "spiffe://dom/%2f/", "spiffe://dom/a b/", "spiffe://dom/\n/", "spiffe://dom/?q/", "spiffe://dom/#f/", "spiffe://dom/#%zz/", "spiffe://dom#/", "spiffe://dom?/", "1spiffe://d/", "sp iffe://d/", "://d/", "*", "", "dom", "dom:80/", "/a:b", "spiffe://dom/a/\x7f", "spiffe://dom/#\x01/", "spiffe://d<>\"/", "spiffe://d^/"}
	inputs = append(inputs, soup(900, 8, "spiffe://", "spiffe://", "spiffe:", "dom", "/", "%41", "%c3", "%", "@", ":", "80", "[", "]", "::1", "%25", "#", "?", " ", "é", "<", "u", "*")...)
	for _, in := range inputs {
		u, err := url.Parse(in)
		ok := err == nil && u.Scheme == "spiffe" && u.Host != ""
		l := line{"in": b64(in), "spiffe": ok, "components": 0}
		if ok {
			if trimmed := strings.Trim(u.Path, "/"); trimmed != "" {
				l["components"] = strings.Count(trimmed, "/") + 1
			}
		}
		lines = append(lines, l)
	}
	return
}

func main() {
	write("base64.jsonl", base64Vectors())
	write("number.jsonl", numberVectors())
	write("json.jsonl", jsonVectors())
	write("string.jsonl", stringVectors())
	write("form.jsonl", formVectors())
	write("query.jsonl", queryVectors())
	write("route.jsonl", routeVectors())
	write("spiffe.jsonl", spiffeVectors())
}
