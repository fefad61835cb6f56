package pgmq

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxNameLength is how long a queue's name may be, in characters.
const MaxNameLength = 47

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// NameError says why a string cannot be the name of a queue.
type NameError struct{ Name, Reason string }

func (e *NameError) Error() string {
	return fmt.Sprintf("queue name %.64q: %s", e.Name, e.Reason)
}

// CheckName refuses an invalid queue name with a [*NameError]. The rule is stricter
// than that of pgmq, which folds upper case and truncates long names, so that two
// names can mean the same table.
func CheckName(name string) error {
	switch {
	case len(name) > MaxNameLength:
		return &NameError{name, fmt.Sprintf("it has %d characters, %d are allowed", len(name), MaxNameLength)}
	case !namePattern.MatchString(name):
		return &NameError{name, "it must consist of lower-case letters, digits and underscores, and begin with a letter"}
	}
	return nil
}

const stepQueue = "_queue" // ends the names of step queues

// QueueOf is [ForNamespace] for a namespace that is known to be valid.
func QueueOf(namespace string) string { return namespace + stepQueue }

// NamespaceOf returns the namespace of a queue of steps.
func NamespaceOf(queue string) string { return strings.TrimSuffix(queue, stepQueue) }

// ForNamespace names the queue of a namespace's steps. The error is a
// [*NameError].
func ForNamespace(namespace string) (string, error) {
	name := QueueOf(namespace)
	if namespace == "" {
		return "", &NameError{name, "the namespace is empty"}
	}
	return name, CheckName(name)
}
