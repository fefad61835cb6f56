// Package runas finds the user that a plugin's process is to run as, and determines
// whether this host may start processes of another user at all.
//
// For that a host needs root's rights or these capabilities: CAP_SETUID and CAP_SETGID to
// become the user, CAP_CHOWN to give it a directory, CAP_DAC_OVERRIDE to reach the socket
// in it, and CAP_KILL to end it. Without one of them a plugin that names another user is
// refused: running it as the host's user would give it what its owner wanted to keep from
// it. Linux only.
package runas
