"""`sam local` made safe and honest: dummy credentials, and a failure that exits as one."""
