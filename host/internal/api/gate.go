package api

func gate(data []byte) error { return nil }
func refusedBody(message string) *problem {
	return newProblem(400, CodeMalformedRequest, "the body is refused: "+message)
}
