package readmodel

// A list comes in pages: NextCursor, passed back as the cursor parameter, continues the
// list, and is absent on the last page.

// TemplatePage is a page of templates.
type TemplatePage struct {
	Items      []TemplateSummary `json:"items"`
	NextCursor string            `json:"next_cursor,omitempty"`
}

// PluginPage lists a host's plugins, all on one page.
type PluginPage struct {
	Items []Plugin `json:"items"`
	// Problem concerns not the plugins but plugins.toml or plugins.lock as a whole.
	Problem string `json:"problem,omitempty" doc:"What is wrong with plugins.toml or plugins.lock now. What ran before keeps running."`
}
