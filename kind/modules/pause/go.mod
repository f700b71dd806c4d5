module vl3/pause

go 1.26.0
