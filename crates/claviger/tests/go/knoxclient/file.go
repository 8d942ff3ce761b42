package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// fromFile is what Knox's file client does for one key (§10): `knox register -g -k ID` from the path, once, and then the file that the
// key's `path` names, read again whenever it is wanted.
func fromFile(id string) (registered, cached *Key, err error) {
	var stdout, stderr bytes.Buffer
	command := exec.Command("knox", "register", "-g", "-k", id)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return nil, nil, fmt.Errorf("knox register: %v: %s", err, stderr.String())
	}
	registered = &Key{}
	if err := json.Unmarshal(stdout.Bytes(), registered); err != nil {
		return nil, nil, fmt.Errorf("what register printed: %v", err)
	}
	text, err := os.ReadFile(registered.Path)
	if err != nil {
		return nil, nil, err
	}
	cached = &Key{}
	return registered, cached, json.Unmarshal(text, cached)
}

// printFromFile prints the primary value, and ends the program unless printed and cached key are the same.
func printFromFile(id string) {
	registered, cached, err := fromFile(id)
	must("the file client", err)
	expect("the file has no path", cached.Path, "")
	cached.Path = registered.Path
	expect("the cached key", cached, registered)
	fmt.Printf("%s", primary(cached).Data)
}
