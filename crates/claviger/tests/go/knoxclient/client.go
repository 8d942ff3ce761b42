// Command knoxclient talks to a Knox server as the Go clients of 2025 and 2026 do (contract knox §2, §10 to §12), with the
// standard library alone, and fails at the first answer that such a client could not live with.
//
// This file is the client; main.go is what is asked of the server.
package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Generation is what differs between the clients of two years.
type Generation struct {
	Name string
	// Strict: success needs HTTP 2xx as well, and an error counts as expected only in its pair of the table (§2).
	Strict bool
}

// Numbers of codes that programs decide by.
const (
	codeInternal        = 1
	codeUnauthenticated = 5
	codeUnauthorized    = 6
)

// httpOf is the table of §2.
var httpOf = map[int]int{
	0: 200, 1: 500, 2: 400, 3: 404, 4: 404, 5: 401, 6: 403, 7: 501, 8: 404, 9: 400, 10: 400, 11: 400, 12: 400, 13: 400,
}

// Envelope is every answer. A retry is decoded into the same value, so a member that is left out keeps its old value.
type Envelope struct {
	Status    string      `json:"status"`
	Code      int         `json:"code"`
	Host      string      `json:"host"`
	Timestamp int64       `json:"ts"`
	Message   string      `json:"message"`
	Data      interface{} `json:"data"`
}

// Access is an entry of an ACL.
type Access struct {
	Type   string `json:"type"`
	ID     string `json:"id"`
	Access string `json:"access"`
}

// Version is one version of a key.
type Version struct {
	ID           uint64 `json:"id"`
	Data         []byte `json:"data"`
	Status       string `json:"status"`
	CreationTime int64  `json:"ts"`
}

// Key is a key as it is read.
type Key struct {
	ID       string    `json:"id"`
	ACL      []Access  `json:"acl"`
	Versions []Version `json:"versions"`
	Hash     string    `json:"hash"`
	Path     string    `json:"path,omitempty"`
	Tink     string    `json:"tinkKeyset,omitempty"`
}

// Failure is an answer that says no.
type Failure struct {
	HTTP    int
	Code    int
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Handler gives an Authorization value, or nothing.
type Handler func() string

// Client is one API client.
type Client struct {
	Host       string
	Generation Generation
	Handlers   []Handler
	HTTP       *http.Client
	// Attempts counts requests that were sent.
	Attempts int
}

// newHTTP is a transport of its own TLS configuration, which turns HTTP/2 off; it asks for `knox` and verifies nothing,
// as the development client does.
func newHTTP(certificates []tls.Certificate, maxVersion uint16) *http.Client {
	config := &tls.Config{ServerName: "knox", InsecureSkipVerify: true, Certificates: certificates, MaxVersion: maxVersion}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
}

// call tries the handlers in turn, as long as the answer is code 5 or 6.
func (c *Client) call(method, path, rawQuery string, form url.Values, data interface{}) error {
	presented := 0
	for _, handler := range c.Handlers {
		token := handler()
		if token == "" {
			continue
		}
		presented++
		err := c.retried(method, path, rawQuery, form, token, data)
		var failure *Failure
		if errors.As(err, &failure) && (failure.Code == codeUnauthenticated || failure.Code == codeUnauthorized) {
			continue
		}
		return err
	}
	if presented == 0 {
		return errors.New("No authentication data given. Use 'knox login' or set KNOX_USER_AUTH or KNOX_MACHINE_AUTH")
	}
	return errors.New("Unsuccessful authorization. No attempted principals were able to perform the requested operation")
}

// retried asks at most three times while the code is 1, about 50 ms apart, into the same envelope.
func (c *Client) retried(method, path, rawQuery string, form url.Values, token string, data interface{}) error {
	envelope := &Envelope{Data: data}
	var failure error
	for attempt := 0; attempt < 3; attempt++ {
		status, err := c.once(method, path, rawQuery, form, token, envelope)
		if err != nil {
			return err
		}
		failure = c.judge(status, envelope)
		if envelope.Code != codeInternal {
			return failure
		}
		time.Sleep(50 * time.Millisecond)
	}
	return failure
}

// judge says whether an answer is a success by the rules of the generation.
func (c *Client) judge(status int, e *Envelope) error {
	if e.Status != "ok" && e.Status != "error" {
		return fmt.Errorf("status is neither ok nor error: %q", e.Status)
	}
	if c.Generation.Strict {
		expected, known := httpOf[e.Code]
		if !known || expected != status {
			return fmt.Errorf("HTTP %d with code %d is no pair of the table: %s", status, e.Code, e.Message)
		}
		if status/100 == 2 && e.Status == "ok" && e.Code == 0 {
			return nil
		}
	} else if e.Status == "ok" && e.Code == 0 {
		return nil
	}
	if e.Status == "ok" || e.Code == 0 {
		return fmt.Errorf("status %q with code %d", e.Status, e.Code)
	}
	return &Failure{HTTP: status, Code: e.Code, Message: e.Message}
}

// once sends one request. The query goes out as it is given: with raw quotes.
func (c *Client) once(method, path, rawQuery string, form url.Values, token string, into *Envelope) (int, error) {
	c.Attempts++
	address := &url.URL{Scheme: "https", Host: c.Host, Path: path, RawQuery: rawQuery}
	request := &http.Request{Method: method, URL: address, Header: http.Header{}, Host: c.Host}
	if form != nil {
		body := form.Encode()
		request.Body = io.NopCloser(strings.NewReader(body))
		request.ContentLength = int64(len(body))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("Authorization", token)
	request.Header.Set("User-Agent", "Knox_Client/"+c.Generation.Name)
	response, err := c.HTTP.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.Proto != "HTTP/1.1" {
		return 0, fmt.Errorf("the server spoke %s", response.Proto)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		return 0, fmt.Errorf("Content-Type is %q", got)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if err := allMembers(body); err != nil {
		return 0, err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return 0, fmt.Errorf("%s %s: %w in %q", method, path, err, body)
	}
	return response.StatusCode, nil
}

// allMembers checks that no member is left out and the answer ends in a newline (§1, §2).
func allMembers(body []byte) error {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &members); err != nil {
		return fmt.Errorf("the answer is no JSON: %w: %q", err, body)
	}
	for _, name := range []string{"status", "code", "host", "ts", "message", "data"} {
		if _, there := members[name]; !there {
			return fmt.Errorf("the answer lacks %q: %s", name, body)
		}
	}
	if len(members) != 6 || body[len(body)-1] != '\n' {
		return fmt.Errorf("the answer is no envelope: %q", body)
	}
	return nil
}

// Create makes a key. The ACL is always sent.
func (c *Client) Create(id string, data []byte, acl []Access) (uint64, error) {
	if acl == nil {
		acl = []Access{}
	}
	encoded, err := json.Marshal(acl)
	if err != nil {
		return 0, err
	}
	form := url.Values{"id": {id}, "data": {base64Of(data)}, "acl": {string(encoded)}}
	var version uint64
	err = c.call("POST", "/v0/keys/", "", form, &version)
	return version, err
}

// Get reads a key with the default filter.
func (c *Client) Get(id string) (*Key, error) { return c.get(id, "") }

// GetWithStatus reads a key with a filter: a JSON string, raw in the URL.
func (c *Client) GetWithStatus(id, status string) (*Key, error) {
	quoted, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	return c.get(id, "status="+string(quoted))
}

func (c *Client) get(id, rawQuery string) (*Key, error) {
	key := &Key{}
	if err := c.call("GET", "/v0/keys/"+id+"/", rawQuery, nil, key); err != nil {
		return nil, err
	}
	if key.ID == "" || key.Hash == "" || key.ACL == nil || key.Versions == nil {
		return nil, errors.New("invalid key content for the remote key")
	}
	return key, nil
}

// Keys lists or polls: ids with the hashes that are known.
func (c *Client) Keys(known map[string]string) ([]string, error) {
	query := url.Values{}
	for id, hash := range known {
		query.Set(id, hash)
	}
	var ids []string
	err := c.call("GET", "/v0/keys/", query.Encode(), nil, &ids)
	if err == nil && ids == nil {
		return nil, errors.New("the list of ids is null")
	}
	return ids, err
}

// Delete deletes a key.
func (c *Client) Delete(id string) error { return c.call("DELETE", "/v0/keys/"+id+"/", "", nil, nil) }

// ACL gets a key's ACL.
func (c *Client) ACL(id string) ([]Access, error) {
	var acl []Access
	err := c.call("GET", "/v0/keys/"+id+"/access/", "", nil, &acl)
	return acl, err
}

// PutAccess changes entries.
func (c *Client) PutAccess(id string, changes ...Access) error {
	encoded, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	return c.call("PUT", "/v0/keys/"+id+"/access/", "", url.Values{"acl": {string(encoded)}}, nil)
}

// PutAccessLegacy changes one entry in the form of old clients.
func (c *Client) PutAccessLegacy(id string, change Access) error {
	encoded, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return c.call("PUT", "/v0/keys/"+id+"/access/", "", url.Values{"access": {rawURLBase64Of(encoded)}}, nil)
}

// Add adds a version.
func (c *Client) Add(id string, data []byte) (uint64, error) {
	var version uint64
	err := c.call("POST", "/v0/keys/"+id+"/versions/", "", url.Values{"data": {base64Of(data)}}, &version)
	return version, err
}

// Update changes a version's status.
func (c *Client) Update(id string, version uint64, status string) error {
	quoted, err := json.Marshal(status)
	if err != nil {
		return err
	}
	return c.call("PUT", fmt.Sprintf("/v0/keys/%s/versions/%d/", id, version), "", url.Values{"status": {string(quoted)}}, nil)
}
