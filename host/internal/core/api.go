package core

import "context"

type apiServer struct{}

func (a *apiServer) failed() <-chan error           { return nil }
func (a *apiServer) stop(ctx context.Context) error { return nil }
func (c *Core) startAPI(ctx context.Context) error  { return nil }
