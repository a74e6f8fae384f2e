// dkim-verify reads {"records": {NAME: TXT}, "messages": [BASE64]} and writes, for each message, what go-msgauth says
// of each of its DKIM signatures: "" where it is valid, else why not. Keys come from the records, never from DNS.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/emersion/go-msgauth/dkim"
)

type question struct {
	Records  map[string]string `json:"records"`
	Messages [][]byte          `json:"messages"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dkim-verify:", err)
		os.Exit(1)
	}
}

func run() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	options := dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if record, ok := asked.Records[name]; ok {
			return []string{record}, nil
		}
		return nil, fmt.Errorf("no record for %s", name)
	}}
	verdicts := make([][]string, 0, len(asked.Messages))
	for _, message := range asked.Messages {
		found, err := dkim.VerifyWithOptions(bytes.NewReader(message), &options)
		if err != nil {
			return err
		}
		said := make([]string, 0, len(found))
		for _, one := range found {
			if one.Err != nil {
				said = append(said, one.Err.Error())
			} else {
				said = append(said, "")
			}
		}
		verdicts = append(verdicts, said)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}
