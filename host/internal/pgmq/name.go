package pgmq

import (
	"fmt"
	"regexp"
)

// MaxNameLength is how long a queue's name may be, in characters.
const MaxNameLength = 47

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// NameError says why a string cannot name a queue.
type NameError struct{ Name, Reason string }

func (e *NameError) Error() string {
	return fmt.Sprintf("queue name %.64q: %s", e.Name, e.Reason)
}

// CheckName refuses what is not a queue's name with a [*NameError]. The rule is
// stricter than pgmq's, which folds upper case and cuts long names, so that two
// names can mean one table.
func CheckName(name string) error {
	switch {
	case len(name) > MaxNameLength:
		return &NameError{name, fmt.Sprintf("it has %d characters, %d are allowed", len(name), MaxNameLength)}
	case !namePattern.MatchString(name):
		return &NameError{name, "it must consist of lower-case letters, digits and underscores, and begin with a letter"}
	}
	return nil
}

// ForNamespace names the queue of a namespace's steps. The error is a
// [*NameError].
func ForNamespace(namespace string) (string, error) {
	name := namespace + "_queue"
	if namespace == "" {
		return "", &NameError{name, "the namespace is empty"}
	}
	return name, CheckName(name)
}
