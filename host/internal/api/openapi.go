package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/hashicorp/go-hclog"
)

// apiVersion is the version of the interface, not of the host. It grows with additions
// under /v1.
const apiVersion = "1.0.0"

// OpenAPI returns the description of the API as indented JSON.
func OpenAPI() ([]byte, error) {
	r := newRoutes(http.NewServeMux(), Backend{}, Config{}.withDefaults(), hclog.NewNullLogger(), &streams{})
	return describe(r.api)
}

func describe(api huma.API) ([]byte, error) {
	plain, err := api.OpenAPI().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, plain, "", "  "); err != nil {
		return nil, fmt.Errorf("indent the API's description: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
