package pgcluster

import "syscall"

// dieWithParent makes the kernel stop the server when we die.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
